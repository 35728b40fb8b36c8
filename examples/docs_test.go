package examples

import (
	"errors"
	"go/ast"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/artstore/artstore-pki"

// TestDocumentationCompiles type-checks the Go code in the Markdown files and
// in the comments of public packages. Such code leaves things out: a lower-case
// name that is not declared, and a result that is not used, are no mistakes.
func TestDocumentationCompiles(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles every public package")
	}
	c := newChecker(t)
	checked := 0
	for _, s := range append(markdown(t), packageDocs(t)...) {
		if !c.ours.MatchString(s.code) {
			continue // a shell command, a layout of files
		}
		checked++
		for _, mistake := range c.check(s.code) {
			t.Errorf("%s: %s", s.where, mistake)
		}
	}
	if checked < 10 {
		t.Errorf("found only %d pieces of Go code", checked)
	}
}

// TestMistakesAreFound checks that the check does not accept everything.
func TestMistakesAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles every public package")
	}
	c := newChecker(t)
	for code, good := range map[string]bool{
		`id, err := rotation.Open(ctx, rotation.Config{Source: src})`: true,
		`id, err := rotation.Opened(ctx, rotation.Config{})`:          false,
		`id, err := rotation.Open(ctx, rotation.Config{Sauce: src})`:  false,
		`rotation.Open(ctx)`:                     false,
		`var id *rotation.Identity; id.Server()`: false,
		`rotation.Open(ctx`:                      false,
	} {
		if got := c.check(code); (len(got) == 0) != good {
			t.Errorf("%s: %q", code, got)
		}
	}
}

// snippet is Go code and the file that has it.
type snippet struct{ where, code string }

// markdown returns the Go blocks of README.md and docs: one snippet for each
// block that is a whole file, and one for all others of a document together,
// because they use each other.
func markdown(t *testing.T) []snippet {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	must(t, err)
	var all []snippet
	for _, file := range append(files, "../README.md") {
		raw, err := os.ReadFile(file)
		must(t, err)
		together := snippet{where: file}
		for _, part := range strings.Split(string(raw), "```go\n")[1:] {
			code, _, _ := strings.Cut(part, "```")
			if strings.Contains("\n"+code, "\npackage ") {
				all = append(all, snippet{file, code})
			} else {
				together.code += code + "\n"
			}
		}
		all = append(all, together)
	}
	return all
}

// packageDocs returns the code in the comments of public packages.
func packageDocs(t *testing.T) []snippet {
	t.Helper()
	var all []snippet
	for _, dir := range publicPackages(t) {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		must(t, err)
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
			must(t, err)
			if f.Doc == nil || strings.HasSuffix(file, "_test.go") {
				continue
			}
			var p comment.Parser
			for _, block := range p.Parse(f.Doc.Text()).Content {
				if code, ok := block.(*comment.Code); ok {
					all = append(all, snippet{file, code.Text})
				}
			}
		}
	}
	return all
}

// publicPackages returns the folders that a user of the module can import.
func publicPackages(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{if and .GoFiles (ne .Name \"main\")}}{{.ImportPath}}{{end}}", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	must(t, err)
	var dirs []string
	for _, p := range strings.Fields(string(out)) {
		if dir := strings.TrimPrefix(p, module+"/"); !slices.Contains(strings.Split(dir, "/"), "internal") && !strings.HasPrefix(dir, "examples") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// checker type-checks code that may use our public packages and some others.
type checker struct {
	imports map[string]string // path by name
	export  map[string]string // file with the types of a path
	ours    *regexp.Regexp    // what uses one of our packages
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	c := &checker{imports: map[string]string{}, export: map[string]string{}}
	for _, std := range []string{
		"context", "crypto/tls", "crypto/x509", "errors", "fmt", "io", "log", "log/slog", "net", "net/http", "os", "os/signal", "strings", "testing", "time",
	} {
		c.imports[path.Base(std)] = std
	}
	var names []string
	for _, dir := range publicPackages(t) {
		names = append(names, path.Base(dir))
		c.imports[path.Base(dir)] = module + "/" + dir
	}
	c.ours = regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)\.[A-Z]`)
	args := []string{"list", "-deps", "-export", "-f", "{{.ImportPath}}\t{{.Export}}"}
	for _, imp := range c.imports {
		args = append(args, imp)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		imp, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		c.export[imp] = file
	}
	return c
}

// open returns the types of a package as the compiler wrote them.
func (c *checker) open(imp string) (io.ReadCloser, error) {
	if c.export[imp] == "" {
		return nil, errors.New("no such package")
	}
	return os.Open(c.export[imp])
}

// leftOut matches the mistakes that are allowed in code of which a part is left out.
var leftOut = regexp.MustCompile(`^undefined: [a-z]\w*$|declared and not used|imported and not used|is not used$|^no new variables`)

// check returns the errors of the compiler, without those that leftOut matches.
func (c *checker) check(code string) []string {
	fset := token.NewFileSet()
	f, err := c.parse(fset, code)
	if err != nil {
		return []string{err.Error()}
	}
	var mistakes []string
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", c.open), Error: func(err error) {
		if e, ok := errors.AsType[types.Error](err); ok && !leftOut.MatchString(e.Msg) {
			mistakes = append(mistakes, e.Msg)
		}
	}}
	_, _ = conf.Check("p", fset, []*ast.File{f}, nil) // its errors were collected
	return mistakes
}

// parse takes a whole file, declarations, or statements.
func (c *checker) parse(fset *token.FileSet, code string) (*ast.File, error) {
	if strings.Contains("\n"+code, "\npackage ") {
		return parser.ParseFile(fset, "doc.go", code, 0)
	}
	var head strings.Builder
	head.WriteString("package p\n")
	for name, imp := range c.imports {
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(code) {
			head.WriteString("import " + name + " \"" + imp + "\"\n")
		}
	}
	if f, err := parser.ParseFile(fset, "doc.go", head.String()+code, 0); err == nil {
		return f, nil
	}
	return parser.ParseFile(fset, "doc.go", head.String()+"func _() {\n"+code+"\n}\n", 0)
}
