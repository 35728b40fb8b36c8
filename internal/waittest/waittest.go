// Package waittest is for packages of which most tests wait: for clocks, for other processes, or
// for servers that they have stopped.
package waittest

import (
	"flag"
	"testing"
)

// atATime is how many tests run at a time. A test with t.Parallel keeps its place while it waits,
// and without this there are as many places as processors.
const atATime = "8"

// Main runs the tests of a package with more of them at a time than there are processors, unless
// the option -parallel says how many:
//
//	func TestMain(m *testing.M) { waittest.Main{M: m}.Run() }
type Main struct{ *testing.M }

// Run returns what [testing.M.Run] returns.
func (m Main) Run() int {
	if !flag.Parsed() {
		flag.Parse()
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", atATime); err != nil {
			panic(err) // each test binary has this option
		}
	}
	return m.M.Run()
}
