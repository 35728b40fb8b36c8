package examples

import (
	"go/importer"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// leaks are exported names whose type a user of the module cannot name. There
// should be none; no new one comes in.
var leaks = []string{
	"audit/cert.Certificate.Life has the type humantime.Seconds",
	"ca/record.NewRow has the type stepapi.RecordRow",
	"ca/store.New has the type sqldb.DB",
	"rotation/enroll.Client.EnrolmentToken has the type stepapi.TokenRequest",
	"rotation/enroll.Client.RecordPage has the type stepapi.RecordPage",
}

// TestUsersCanNameWhatTheyGet checks that each exported field, parameter or result has a type that is
// exported and not of an internal package. An alias in a public package is a name too.
func TestUsersCanNameWhatTheyGet(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles every public package")
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", newChecker(t).open)
	for _, dir := range publicPackages(t) {
		pkg, err := imp.Import(module + "/" + dir)
		must(t, err)
		for _, name := range pkg.Scope().Names() {
			if obj := pkg.Scope().Lookup(name); obj.Exported() {
				for _, leak := range leaksOf(obj) {
					if !slices.Contains(leaks, leak) {
						t.Error(leak)
					}
				}
			}
		}
	}
}

// leaksOf returns what is wrong with an exported name of a package.
func leaksOf(obj types.Object) []string {
	where := strings.TrimPrefix(obj.Pkg().Path(), module+"/") + "." + obj.Name()
	var found []string
	report := func(member string, t types.Type) {
		for _, n := range unnamed(t, nil) {
			found = append(found, where+member+" has the type "+n.Obj().Pkg().Name()+"."+n.Obj().Name())
		}
	}
	named, ok := obj.Type().(*types.Named)
	if _, isType := obj.(*types.TypeName); !isType || !ok {
		if _, alias := obj.Type().(*types.Alias); !alias {
			report("", obj.Type())
		}
		return found
	}
	for m := range named.Methods() {
		if m.Exported() {
			report("."+m.Name(), m.Type())
		}
	}
	if s, ok := named.Underlying().(*types.Struct); ok {
		for f := range s.Fields() {
			if f.Exported() {
				report("."+f.Name(), f.Type())
			}
		}
		return found
	}
	report("", named.Underlying())
	return found
}

// unnamed collects the types in t that are ours and cannot be named outside.
func unnamed(t types.Type, found []*types.Named) []*types.Named {
	switch t := t.(type) {
	case *types.Named:
		pkg := t.Obj().Pkg()
		ours := pkg != nil && strings.HasPrefix(pkg.Path(), module+"/")
		if ours && (!t.Obj().Exported() || slices.Contains(strings.Split(pkg.Path(), "/"), "internal")) {
			return append(found, t)
		}
	case *types.Map:
		return unnamed(t.Elem(), unnamed(t.Key(), found))
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		return unnamed(t.Elem(), found)
	case *types.Signature:
		for _, tuple := range []*types.Tuple{t.Params(), t.Results()} {
			for v := range tuple.Variables() {
				found = unnamed(v.Type(), found)
			}
		}
	}
	return found
}
