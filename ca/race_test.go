//go:build race

package ca_test

// raceEnabled: under the race detector Go code takes ten times as long, and assembler
// such as that of RSA does not.
const raceEnabled = true
