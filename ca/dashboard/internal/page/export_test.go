package page

// Style is what the policy allows.
var Style = style
