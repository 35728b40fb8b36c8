//go:build race

package rotation_test

const raceEnabled = true
