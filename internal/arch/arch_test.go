package arch_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/arch"
)

const module = "github.com/artstore/artstore-pki"

// root is the directory of go.mod, two above this package.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestArrows is the guard itself: every import in this repository is drawn.
func TestArrows(t *testing.T) {
	imports, err := arch.Load(root(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(imports["internal/arch"]) == 0 || len(imports["internal/durable"]) == 0 {
		t.Fatalf("the loader found no imports of packages that exist: %v", slices.Sorted(maps.Keys(imports)))
	}
	for _, v := range arch.Check(imports, arch.Rules()) {
		t.Error(v)
	}
}

// TestPlantedImportIsFound plants one forbidden import after another in a copy
// of real packages, loads it as TestArrows does, and wants exactly that
// violation with its reason.
func TestPlantedImportIsFound(t *testing.T) {
	const smallstep = "github.com/smallstep/certificates"
	for _, c := range []struct{ pkg, imp, why string }{
		{"rotation", module + "/ca", "services embed this package"},
		{"rotation", module + "/ingestclient", "services embed this package"},
		{"rotation", module + "/httpserver", "services embed this package"},
		{"rotation", "github.com/prometheus/client_golang/prometheus", "services embed this package"},
		{"rotation/enroll", "go.step.sm/crypto/jose", "services embed this package"},
		{"rotation/enroll", smallstep + "/api", "420 packages"},
		{"rotation", module + "/rotation/rotgrpc", "services embed this package"},
		{"rotation", "google.golang.org/grpc", "services embed this package"},
		{"rotation/enroll", module + "/rotation/prom", "services embed this package"},
		{"rotation/spiffe", "github.com/spiffe/go-spiffe/v2/workloadapi", "must not pay for this one"},
		{"rotation/spiffe", "google.golang.org/grpc", "must not pay for this one"},
		{"rotation/prom", "google.golang.org/grpc", "must not pay for this one"},
		{"rotation/rotgrpc", "github.com/prometheus/client_golang/prometheus", "must not pay for this one"},
		{"rotation/workload", module + "/ca", "must not pay for this one"},
		{"rotation/spiffe", module + "/rotation/workload", "must not pay for this one"},
		{"cmd/artstore-pki", module + "/internal/pkitest", "not part of the program"},
		{"ingestclient", module + "/rotation/enroll", "never who issues them"},
		{"ingestclient", module + "/internal/devstack", "never who issues them"},
		{"ca", module + "/rotation", "not its business"},
		{"ca", module + "/audit", "not its business"},
		{"ca/store", module + "/ca", "not its business"},
		{"ca/store", smallstep + "/acme", "420 packages"},
		{"ca", module + "/ca/backup", "not its business"},
		{"ca/backup", smallstep + "/db", "420 packages"},
		{"ca/internal/acmesrv", module + "/ca", "never learns how they are issued"},
		{"ca/catest", smallstep + "/authority", "420 packages"},
		{"audit", module + "/ca/store", "how certificates come to be"},
		{"internal/devstack", module + "/ingestclient", "peers of the client"},
		{"internal/devstack", module + "/ca", "peers of the client"},
		{"internal/pemfile", module + "/rotation", "a leaf is imported by all"},
		{"secret", "golang.org/x/sys/unix", "a leaf is imported by all"},
		{"internal/arch", module + "/ca", "can be broken by it"},
		{"cmd/artstore-pki", module + "/ca/catest", "not part of the program"},
		{"cmd/artstore-pki", smallstep + "/db", "420 packages"},
		{"util", "fmt", "draw its arrows"},
	} {
		t.Run(c.pkg+"→"+c.imp, func(t *testing.T) {
			dir := t.TempDir()
			copyReal(t, dir, c.pkg)
			plant(t, dir, c.pkg+"/planted.go", source(c.imp))
			imports, err := arch.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := arch.Check(imports, arch.Rules())
			if len(got) != 1 || got[0].Package != c.pkg || !strings.Contains(got[0].String(), c.why) {
				t.Fatalf("got %v; want one violation of %s that says %q", got, c.pkg, c.why)
			}
			if want := strings.TrimPrefix(c.imp, module+"/"); got[0].Import != "" && !strings.HasSuffix(got[0].Import, want) {
				t.Errorf("the violation names %q, want %q", got[0].Import, want)
			}
		})
	}
}

// TestDrawnArrowsAreAllowed: a guard that refuses everything finds every
// planted import too.
func TestDrawnArrowsAreAllowed(t *testing.T) {
	for _, c := range []struct{ pkg, imp string }{
		{"internal/filewatch", "github.com/fsnotify/fsnotify"},
		{"rotation", module + "/internal/stepapi"},
		{"rotation/enroll", module + "/rotation"},
		{"rotation/spiffe", "github.com/spiffe/go-spiffe/v2/svid/x509svid"},
		{"rotation/prom", "github.com/prometheus/client_golang/prometheus"},
		{"rotation/rotgrpc", "google.golang.org/grpc/credentials"},
		{"rotation/workload", "google.golang.org/grpc/keepalive"},
		{"ingestclient", module + "/rotation"},
		{"ingestclient/ingesttest", module + "/internal/devstack"},
		{"ca", "github.com/smallstep/certificates/authority/provisioner"},
		{"ca", module + "/ca/store"},
		{"ca/internal/acmestore", "github.com/smallstep/certificates/acme"},
		{"ca/internal/acmesrv", "github.com/smallstep/certificates/acme"},
		{"ca/backup", module + "/ca"},
		{"ca/catest", module + "/ca"},
		{"internal/devstack", "github.com/go-chi/chi/v5"},
		{"cmd/artstore-pki", module + "/internal/devstack"},
		{"cmd/another", module + "/rotation/enroll"},
		{"audit", "crypto/x509"},
	} {
		imports := map[string][]string{c.pkg: {c.imp}}
		if got := arch.Check(imports, arch.Rules()); len(got) != 0 {
			t.Errorf("%s may import %s: %v", c.pkg, c.imp, got)
		}
	}
}

// TestPrefixIsNoArrow: names that only begin alike are other packages.
func TestPrefixIsNoArrow(t *testing.T) {
	for _, c := range []struct{ pkg, imp string }{
		{"rotation", "github.com/fsnotify/fsnotifyx"},
		{"ca/catest", "github.com/smallstep/certificatesx/y"}, // any module: allowed
		{"cmd/artstore-pki", module + "/rotationx"},
		{"rotation", module + "/internal/secretx"},
	} {
		got := arch.Check(map[string][]string{c.pkg: {c.imp}}, arch.Rules())
		if allowed := c.pkg == "ca/catest"; allowed != (len(got) == 0) {
			t.Errorf("%s imports %s: %v", c.pkg, c.imp, got)
		}
	}
}

func TestLoadLeavesOut(t *testing.T) {
	dir := t.TempDir()
	copyReal(t, dir, "")
	for _, name := range []string{
		"rotation/x_test.go", "rotation/testdata/x.go", ".hidden/x.go", "_old/x.go", "vendor/x/x.go", "bench/deep/x.go",
	} {
		plant(t, dir, name, source(module+"/ca"))
	}
	plant(t, dir, "bench/go.mod", "module example.com/bench\n")
	plant(t, dir, "rotation/x.go", "//go:build never\n\n"+source(module+"/secret"))
	imports, err := arch.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(map[string][]string{"rotation": {module + "/secret"}})
	if got := fmt.Sprint(imports); got != want {
		t.Errorf("loaded %s, want %s", got, want)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ gomod, file, want string }{
		"no go.mod":     {"", "package p\n", "go.mod"},
		"no module":     {"go 1.26\n", "package p\n", "no module line"},
		"other module":  {"module example.com/x\n", "package p\n", "example.com/x"},
		"not Go":        {"module " + module + "\n", "not go\n", "x.go"},
		"broken import": {"module " + module + "\n", "package p\nimport \"\n", "x.go"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.gomod != "" {
				plant(t, dir, "go.mod", c.gomod)
			}
			plant(t, dir, "p/x.go", c.file)
			if _, err := arch.Load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that names %q", err, c.want)
			}
		})
	}
}

// TestImportersStayLight asks the go command what an importer really links: the
// rows of the table are direct imports, this is what they add up to.
func TestImportersStayLight(t *testing.T) {
	for _, pkg := range []string{"rotation", "rotation/enroll", "ingestclient"} {
		if _, err := os.Stat(filepath.Join(root(t), pkg)); err != nil {
			t.Logf("%s is not there yet", pkg)
			continue
		}
		for _, dep := range dependencies(t, pkg) {
			light := strings.HasPrefix(dep, module) || dep == "github.com/fsnotify/fsnotify" ||
				strings.HasPrefix(dep, "github.com/fsnotify/fsnotify/") || strings.HasPrefix(dep, "golang.org/x/sys/")
			if !light {
				t.Errorf("importing %s links %s", pkg, dep)
			}
		}
	}
}

// TestRecordLinksNoServer: who reads or copies a record does not link an ACME server.
func TestRecordLinksNoServer(t *testing.T) {
	for _, dep := range dependencies(t, "ca/store") {
		if strings.HasPrefix(dep, "github.com/smallstep/") || strings.HasPrefix(dep, "go.step.sm/") {
			t.Errorf("importing ca/store links %s", dep)
		}
	}
}

// dependencies are the packages that a package of ours links, the standard library
// left out.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+pkg)
	cmd.Dir = root(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("listing dependencies of %s: %v\n%s", pkg, err, out)
	}
	return strings.Fields(string(out))
}

// copyReal copies go.mod and, if it exists, one package of this repository.
func copyReal(t *testing.T, dir, pkg string) {
	t.Helper()
	plant(t, dir, "go.mod", "module "+module+"\n")
	if pkg == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(root(t), pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		plant(t, dir, filepath.Join(pkg, filepath.Base(f)), string(src))
	}
}

func source(imp string) string { return fmt.Sprintf("package planted\n\nimport _ %q\n", imp) }

func plant(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
