package values

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/urfave/cli/v2"
)

// flagGroup is the name of the flag for the group of a socket.
const flagGroup = "group"

var (
	errNoGroup = errors.New("there is no such group")
	errOfRoot  = errors.New("want a group other than root's")
)

// Group is the value of a flag for the group of a socket: the number of a group, or 0 for none.
type Group int

// GroupFlag returns --group, with no group by default; [GroupOf] reads it.
func GroupFlag() cli.Flag {
	return &cli.GenericFlag{Name: flagGroup, Value: new(Group), DefaultText: "none", Usage: "`GROUP`, by name or number, whose members may use the socket as well: mode 0660"}
}

// GroupOf returns the number of the group, or 0 if the flag was not given or the command does
// not have it.
func GroupOf(c *cli.Context) int {
	if g, ok := c.Generic(flagGroup).(*Group); ok {
		return int(*g)
	}
	return 0
}

// Set reads the name or the number of a group. The group of root is refused: 0 stands for
// none, and root needs no permission.
func (g *Group) Set(text string) error {
	number := text
	if _, err := strconv.Atoi(text); err != nil {
		found, err := user.LookupGroup(text)
		if err != nil {
			return fmt.Errorf("%.80q: %w", text, errNoGroup)
		}
		number = found.Gid
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil || id == 0 {
		return fmt.Errorf("%.80q: %w", text, errOfRoot)
	}
	*g = Group(id)
	return nil
}

// String is what Set reads back, or "" for none.
func (g *Group) String() string {
	if g == nil || *g == 0 {
		return ""
	}
	return strconv.Itoa(int(*g))
}
