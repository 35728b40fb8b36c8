package catest_test

import "testing"

// TestExample runs the example, which is a test itself and so has no output to compare.
func TestExample(t *testing.T) { testStorage(t) }
