package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/settings"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// settingsTable is the table of docs/auth-api.md as the code has it.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("| variable, and other names of it | flag | in YAML | type | default | |\n|---|---|---|---|---|---|\n")
	code := func(list ...string) string {
		var out []string
		for _, s := range list {
			if s != "" {
				out = append(out, "`"+s+"`")
			}
		}
		return strings.Join(out, ", ")
	}
	for _, r := range settings.Table() {
		names, flag, file := r.Variables(), "", ""
		if r.Flag != "" {
			flag = "--" + r.Flag
		}
		if r.FileFlag != "" {
			file = "--" + r.FileFlag
		}
		if r.FromFile() {
			names = append(names, r.Variable()+settings.FileSuffix)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", code(names...), code(flag, file), code(r.Key), r.Type(), code(r.Default), r.Doc)
	}
	return b.String()
}

func TestSettingsAreDocumented(t *testing.T) {
	_, rest, _ := strings.Cut(readDoc(t, "auth-api.md"), "<!-- settings: compared with the code by a test -->\n")
	got, _, _ := strings.Cut(rest, "<!-- /settings -->")
	if want := settingsTable(); got != want {
		t.Errorf("docs/auth-api.md has another table than the code; want\n%s", want)
	}
}

// Every sentinel of the packages that a user meets while uploading is explained by its text.
func TestErrorsAreExplained(t *testing.T) {
	doc, count := readDoc(t, "troubleshooting.md"), 0
	for _, dir := range []string{"ingestclient", "ingestclient/spool", "rotation", "rotation/enroll", "secret", "internal/durable"} {
		for text, name := range sentinels(t, filepath.Join("..", "..", dir)) {
			if count++; !strings.Contains(doc, text) {
				t.Errorf("docs/troubleshooting.md does not explain %s.%s: %q", dir, name, text)
			}
		}
	}
	if count < 25 {
		t.Errorf("only %d errors found", count)
	}
}

// sentinels are the texts of `ErrX = errors.New(text)` with their names. A
// directory that is not there has none.
func sentinels(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	inspect(t, dir, func(n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Err") {
			return
		}
		if call, ok := spec.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
			if text := literal(call.Args[0]); text != "" {
				out[text] = spec.Names[0].Name
			}
		}
	})
	return out
}

var verb = regexp.MustCompile(`%[a-z]`)

// Every hint of the commands is in the page, with FLAG or the like in place of what is filled in.
func TestHintsAreExplained(t *testing.T) {
	doc, count := readDoc(t, "troubleshooting.md"), 0
	for _, hint := range hintTexts(t) {
		for _, part := range verb.Split(hint, -1) {
			if part = strings.Trim(part, " -"); len(part) < 4 {
				continue
			}
			if count++; !strings.Contains(doc, part) {
				t.Errorf("docs/troubleshooting.md does not have the hint %q: %q", hint, part)
			}
		}
	}
	if count < 25 {
		t.Errorf("only %d hints found", count)
	}
}

// hintTexts are the literal texts given to WithHint, constants named hint…, and, of
// the packages hints and statehints, their constants and what For returns. They are looked for in the
// command and in the packages below it.
func hintTexts(t *testing.T) (out []string) {
	t.Helper()
	below, err := filepath.Glob(filepath.Join("internal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(below, ".") {
		out = append(out, hintsIn(t, dir)...)
	}
	return out
}

func hintsIn(t *testing.T, dir string) (out []string) {
	t.Helper()
	all := filepath.Base(dir) == "hints" || filepath.Base(dir) == "statehints"
	inspect(t, dir, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			if name := calledName(n); name == "WithHint" && len(n.Args) > 1 {
				out = append(out, literal(n.Args[1]))
			}
		case *ast.ValueSpec:
			if (all || strings.HasPrefix(n.Names[0].Name, "hint")) && len(n.Values) == 1 {
				out = append(out, literal(n.Values[0]))
			}
		case *ast.FuncDecl:
			if !all || n.Name.Name != "For" {
				return
			}
			ast.Inspect(n, func(inner ast.Node) bool {
				if r, ok := inner.(*ast.ReturnStmt); ok {
					out = append(out, literal(r.Results[0]))
				}
				return true
			})
		}
	})
	return out
}

// calledName is the name of a called function, without its package.
func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(lit.Value) // valid: it was parsed
	return text
}

// inspect calls f for every node of the package's code in dir, tests aside.
func inspect(t *testing.T, dir string, f func(ast.Node)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if n != nil {
				f(n)
			}
			return true
		})
	}
}
