package acmestore

// NewEABSecret draws a secret of an external account key.
var NewEABSecret = newEABSecret
