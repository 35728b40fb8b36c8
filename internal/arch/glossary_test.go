package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var quoted = regexp.MustCompile("`([^`]+)`")

// TestGlossary: docs/glossary.md has each term once, in order, and what it says
// of the code is there.
func TestGlossary(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root(t), "docs", "glossary.md"))
	must(t, err)
	seen, last := map[string]bool{}, ""
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "## ") {
			last = ""
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| term ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Errorf("%d cells, want term, meaning, origin, where: %s", len(cells), line)
			continue
		}
		term := strings.TrimSpace(cells[0])
		if seen[term] {
			t.Errorf("%s: twice", term)
		}
		if strings.ToLower(term) < strings.ToLower(last) {
			t.Errorf("%s: behind %s", term, last)
		}
		seen[term], last = true, term
		places := quoted.FindAllStringSubmatch(cells[3], -1)
		if len(places) == 0 {
			t.Errorf("%s: no place in the code", term)
		}
		for _, p := range places {
			if !exists(t, p[1]) {
				t.Errorf("%s: there is no %s", term, p[1])
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("found only %d terms", len(seen))
	}
}

var (
	codeName = regexp.MustCompile(`^([a-z]\w*)\.([A-Z]\w*(\.\w+)?)$`)
	codeFile = regexp.MustCompile(`^[a-z][\w/-]*/[\w-]+\.go$`)
	codePkg  = regexp.MustCompile(`^(audit|ca|cmd|ingestclient|internal|rotation)(/[a-z0-9-]+)+$`)
)

// TestDocumentsNameWhatExists: a file of ours, or a name with its package before
// it, in any document is one that the code still has.
func TestDocumentsNameWhatExists(t *testing.T) {
	packages := map[string][]string{} // paths by name
	for _, s := range shapes(t) {
		base := path.Base(s.Package)
		packages[base] = append(packages[base], s.Package)
	}
	found := 0
	for _, file := range documents(t) {
		dir, base := path.Split(filepath.ToSlash(file)) // elsewhere such a word may be a directory of the reader's
		aboutCode := strings.HasSuffix(dir, "/design/") || base == "architecture.md" || base == "CONTRIBUTING.md"
		for _, q := range codeSpans(t, file) {
			good := true
			if m := codeName.FindStringSubmatch(q); m != nil && packages[m[1]] != nil {
				found++
				good = slices.ContainsFunc(packages[m[1]], func(pkg string) bool { return exists(t, path.Dir(pkg)+"/"+q) })
			} else if codeFile.MatchString(q) || aboutCode && codePkg.MatchString(q) {
				found++
				good = exists(t, q)
			}
			if !good {
				t.Errorf("%s: there is no %s", base, q)
			}
		}
	}
	if found < 20 {
		t.Errorf("found only %d names", found)
	}
}

// codeSpans returns what stands between single backticks, outside of blocks.
func codeSpans(t *testing.T, file string) (spans []string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	block := false
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			block = !block
		}
		if block {
			continue
		}
		for _, q := range quoted.FindAllStringSubmatch(line, -1) {
			spans = append(spans, q[1])
		}
	}
	return spans
}

// documents returns the Markdown files that speak of the code as it is. The
// changelog speaks of what it was.
func documents(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/*/*.md"} {
		some, err := filepath.Glob(filepath.Join(root(t), filepath.FromSlash(pattern)))
		must(t, err)
		files = append(files, some...)
	}
	return files
}

// exists looks for a path from the root, or for the declaration that a package
// path with a name behind it, such as rotation.Server.Reauthorize, speaks of.
func exists(t *testing.T, place string) bool {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root(t), filepath.FromSlash(place))); err == nil {
		return true
	}
	slash := strings.LastIndex(place, "/") + 1
	pkg, name, found := strings.Cut(place[slash:], ".")
	return found && slices.Contains(declared(t, place[:slash]+pkg), name)
}

// declared returns the names of a package: "Name", and "Type.Name" of a method
// or field.
func declared(t *testing.T, pkg string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), filepath.FromSlash(pkg), "*.go"))
	must(t, err)
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		must(t, err)
		for _, decl := range f.Decls {
			names = append(names, namesOf(decl)...)
		}
	}
	return names
}

func namesOf(decl ast.Decl) (names []string) {
	if d, ok := decl.(*ast.FuncDecl); ok {
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
		recv := d.Recv.List[0].Type
		if star, ok := recv.(*ast.StarExpr); ok {
			recv = star.X
		}
		if id, ok := recv.(*ast.Ident); ok {
			names = append(names, id.Name+"."+d.Name.Name)
		}
		return names
	}
	for _, spec := range decl.(*ast.GenDecl).Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			names = append(names, s.Name.Name)
			if st, ok := s.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, id := range field.Names {
						names = append(names, s.Name.Name+"."+id.Name)
					}
				}
			}
		case *ast.ValueSpec:
			for _, id := range s.Names {
				names = append(names, id.Name)
			}
		}
	}
	return names
}

// TestArchitectureHasEveryPackage: a package that is not in docs/architecture.md
// has no purpose that a reader can find.
func TestArchitectureHasEveryPackage(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root(t), "docs", "architecture.md"))
	must(t, err)
	for _, s := range shapes(t) {
		switch {
		case strings.HasPrefix(s.Package, "examples/"), strings.HasPrefix(s.Package, "scripts/"), strings.HasPrefix(s.Package, "internal/arch/"):
		case !strings.Contains(string(raw), "`"+s.Package+"`") && !strings.HasPrefix(s.Package, "cmd/artstore-pki"):
			t.Errorf("%s: not in docs/architecture.md", s.Package)
		}
	}
}
