package arch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Graph says how the files of one package refer to each other. An arrow leads
// from a file to a declaration in another file of the package: a type, function,
// variable, constant, method or field. It counts once, however often the file
// names the declaration.
type Graph struct {
	Package string   // relative to the module
	Order   []string // the files from low to high, so that few arrows lead up
	Arrows  int      // all arrows
	Up      []Arrow  // arrows from a file to a higher one
}

// Arrow is one reference from a file to a declaration in another file.
type Arrow struct {
	From, To string // files
	Name     string // of the declaration; of a method or field with its type
}

// UpShare returns the share of the arrows that lead up, from 0 to 1; CONTRIBUTING.md bounds it.
// With a low share, a reader who goes through the files from low to high meets few names
// that are explained later.
func (g Graph) UpShare() float64 {
	if g.Arrows == 0 {
		return 0
	}
	return float64(len(g.Up)) / float64(g.Arrows)
}

// Graphs type-checks packages of ours, given by patterns of the go command
// relative to root, and returns their graphs in the order of their names. The
// go command compiles what they import, if that is not in its cache. Files that
// are not built on this platform have no arrows.
func Graphs(ctx context.Context, root string, patterns ...string) ([]Graph, error) {
	ours, export, err := listPackages(ctx, root, patterns)
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	graphs := make([]Graph, 0, len(ours))
	for _, p := range ours {
		g, err := p.graph(export)
		if err != nil {
			return nil, fmt.Errorf("checking %s: %w", p.path, err)
		}
		graphs = append(graphs, g)
	}
	return graphs, nil
}

// listed is a package of ours as the go command knows it.
type listed struct {
	path, dir string
	files     []string
}

// listPackages returns the packages that the patterns name, and for every
// package that they import the file with its compiled types.
func listPackages(ctx context.Context, root string, patterns []string) ([]listed, map[string]string, error) {
	const form = "{{.ImportPath}}\t{{.Export}}\t{{.DepOnly}}\t{{.Dir}}\t{{range .GoFiles}}{{.}} {{end}}"
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-deps", "-export", "-f", form}, patterns...)...) //nolint:gosec // G204: the patterns are of the developer who runs it
	cmd.Dir = root
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("running go list: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	export := map[string]string{}
	var ours []listed
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 5 {
			return nil, nil, fmt.Errorf("go list said %q", line)
		}
		export[fields[0]] = fields[1]
		if fields[2] == "false" {
			ours = append(ours, listed{path: fields[0], dir: fields[3], files: strings.Fields(fields[4])})
		}
	}
	slices.SortFunc(ours, func(a, b listed) int { return strings.Compare(a.path, b.path) })
	return ours, export, nil
}

// graph type-checks the package and counts its arrows. It fails on an error of the compiler,
// because an incomplete graph would have fewer arrows that lead up.
func (p listed) graph(export map[string]string) (Graph, error) {
	fset := token.NewFileSet()
	files := make([]*ast.File, 0, len(p.files))
	for _, name := range p.files {
		f, err := parser.ParseFile(fset, filepath.Join(p.dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return Graph{}, err
		}
		files = append(files, f)
	}
	open := func(path string) (io.ReadCloser, error) {
		if export[path] == "" {
			return nil, errors.New("the go command compiled no such package")
		}
		return os.Open(export[path])
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", open)}
	pkg, err := conf.Check(p.path, fset, files, info)
	if err != nil {
		return Graph{}, err
	}
	arrows := map[Arrow]bool{}
	for id, used := range info.Uses {
		if a, ok := arrowOf(fset, pkg, id, used); ok {
			arrows[a] = true
		}
	}
	return newGraph(strings.TrimPrefix(p.path, ownPrefix), p.files, arrows), nil
}

// arrowOf returns the arrow for a use of a declaration. The use of a local name or of a name of
// another package is no arrow.
func arrowOf(fset *token.FileSet, pkg *types.Package, id *ast.Ident, used types.Object) (Arrow, bool) {
	if used.Pkg() != pkg || !used.Pos().IsValid() {
		return Arrow{}, false
	}
	from := filepath.Base(fset.Position(id.Pos()).Filename)
	at := fset.Position(used.Pos())
	to := filepath.Base(at.Filename)
	if from == to {
		return Arrow{}, false
	}
	name := used.Name()
	switch o := used.(type) {
	case *types.Func:
		if recv := o.Signature().Recv(); recv != nil {
			name = types.TypeString(recv.Type(), func(*types.Package) string { return "" }) + "." + name
		}
	case *types.Var:
		if o.IsField() { // fields of one name are told apart by their line
			name = fmt.Sprintf("field %s (line %d)", name, at.Line)
		}
	}
	return Arrow{From: from, To: to, Name: name}, true
}

// newGraph finds an order of the files and the arrows that lead up in it.
func newGraph(pkg string, files []string, arrows map[Arrow]bool) Graph {
	g := Graph{Package: pkg, Order: orderFiles(files, arrows), Arrows: len(arrows)}
	height := map[string]int{}
	for i, name := range g.Order {
		height[name] = i
	}
	for a := range arrows {
		if height[a.To] > height[a.From] {
			g.Up = append(g.Up, a)
		}
	}
	slices.SortFunc(g.Up, func(a, b Arrow) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Name, b.Name))
	})
	return g
}

// orderFiles returns an order in which few arrows lead up. The best order is a
// feedback arc set, which is NP-hard. This one moves one file at a time to where
// it saves most, until no move saves anything, and is the same in each run.
func orderFiles(files []string, arrows map[Arrow]bool) []string {
	weight := map[[2]string]int{} // arrows from the first file to the second
	for a := range arrows {
		weight[[2]string{a.From, a.To}]++
	}
	order := slices.Clone(files)
	slices.Sort(order)
	// Start with the files by the number of arrows from them less those to them, low first.
	rank := map[string]int{}
	for pair, n := range weight {
		rank[pair[0]] += n
		rank[pair[1]] -= n
	}
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(rank[a], rank[b]) })
	for saved := true; saved; {
		order, saved = improveOrder(order, weight)
	}
	return order
}

// improveOrder makes the single move that saves most arrows, and reports whether
// there was one.
func improveOrder(order []string, weight map[[2]string]int) ([]string, bool) {
	best, from, to := 0, 0, 0
	for i, file := range order {
		for _, step := range []int{1, -1} {
			saved := 0
			for j := i + step; j >= 0 && j < len(order); j += step {
				// Of the arrows between the two, those that lead up turn round.
				saved += step * (weight[[2]string{file, order[j]}] - weight[[2]string{order[j], file}])
				if saved > best {
					best, from, to = saved, i, j
				}
			}
		}
	}
	if best == 0 {
		return order, false
	}
	moved := order[from]
	return slices.Insert(slices.Delete(order, from, from+1), to, moved), true
}
