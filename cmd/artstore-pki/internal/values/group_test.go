package values

import (
	"errors"
	"testing"

	"github.com/urfave/cli/v2"
)

// A group is named or numbered, and that of root is none.
func TestGroup(t *testing.T) {
	g := Group(7)
	for _, bad := range []string{"", "0", "-1", "root", "4294967296", "no such group", "\x1b[0m"} {
		if err := g.Set(bad); !errors.Is(err, errNoGroup) && !errors.Is(err, errOfRoot) || g != 7 {
			t.Errorf("%q is taken as %d, %v", bad, g, err)
		}
	}
	for _, args := range [][]string{{"x"}, {"x", "--group", "12"}} {
		app := &cli.App{Flags: []cli.Flag{GroupFlag()}, Action: func(c *cli.Context) error {
			if got := GroupOf(c); got != 0 && got != 12 || (got == 0) != (len(args) == 1) {
				t.Errorf("%q: group %d", args, got)
			}
			return nil
		}}
		if err := app.Run(args); err != nil {
			t.Error(err)
		}
	}
	if text := g.String(); text != "7" || (*Group)(nil).String() != "" {
		t.Error(text)
	}
}
