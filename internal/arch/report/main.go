// Command report prints how the packages of this repository stand: how many
// files and exported names each has, which part of its lines are comments, and how
// many arrows between its files lead back up.
//
//	go run ./internal/arch/report                 every package
//	go run ./internal/arch/report ./ca ./audit    these, with each arrow that leads up
//
// Exit status: 0, or 1 where something could not be read.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/artstore/artstore-pki/internal/arch"
)

func main() {
	ctx := context.Background() //nolint:forbidigo // main makes the first context
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1) //nolint:forbidigo // main ends the process
	}
}

// run writes the table. For packages that were named it writes the arrows that lead up too.
func run(ctx context.Context, out io.Writer, patterns []string) error {
	shapes, err := arch.Shapes(".")
	if err != nil {
		return err
	}
	detailed := len(patterns) > 0
	if !detailed {
		patterns = []string{"./..."}
	}
	graphs, err := arch.Graphs(ctx, ".", patterns...)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "package\tfiles\texported\tcomments\tarrows\tup\tshare")
	for _, g := range graphs {
		i := slices.IndexFunc(shapes, func(s arch.Shape) bool { return s.Package == g.Package })
		if i < 0 {
			continue // generated as a whole
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%.1f %%\t%d\t%d\t%.0f %%\n",
			g.Package, len(shapes[i].Files), len(shapes[i].Exported), 100*shapes[i].CommentShare(), g.Arrows, len(g.Up), 100*g.UpShare())
	}
	if err := table.Flush(); err != nil || !detailed {
		return err
	}
	for _, g := range graphs {
		if _, err := io.WriteString(out, detail(g)); err != nil {
			return err
		}
	}
	return nil
}

// detail lists the files of a package from low to high, each with its arrows up.
func detail(g arch.Graph) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, files from low to high:\n", g.Package)
	for _, name := range g.Order {
		fmt.Fprintf(&b, "  %s\n", name)
		for _, a := range g.Up {
			if a.From == name {
				fmt.Fprintf(&b, "    up to %s: %s\n", a.To, a.Name)
			}
		}
	}
	return b.String()
}
