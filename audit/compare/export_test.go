package compare

// ReadUpTo is readUpTo.
var ReadUpTo = readUpTo
