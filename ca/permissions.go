package ca

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
)

// exposure is what somebody besides us and root can read or change of an authority.
type exposure struct {
	severity string
	text     string
}

// exposures looks at the state directory, at what pki.yaml keeps elsewhere, at the
// password file, and at the directories above each. Root may look at the directory
// of the user that serve runs as: then that user may own all of it, and is named.
func (f files) exposures(cfg policy.Config) (out []exposure) {
	var owners []int
	if info, err := os.Stat(f.dir); err == nil {
		if uid, ok := fileperm.Owner(info); ok && uid != 0 && uid != os.Geteuid() {
			out = append(out, exposure{DiagnosisWarning, fmt.Sprintf(
				"%s belongs to user %d, who can read and change all of it: run commands and serve as that user, or take it with chown -R", f.dir, uid)})
			owners = append(owners, uid)
		}
	}
	var found []string
	look := func(path string, most fs.FileMode) { found = append(found, fileperm.File(path, most, owners...)...) }
	for _, dir := range []string{f.dir, f.path("secrets"), f.path("certs")} {
		look(dir, 0o750)
	}
	look(f.path(statedir.ConfigFile), durable.Public)
	public, _ := filepath.Glob(f.path("certs/*")) // the patterns are well formed
	for _, p := range public {
		look(p, durable.Public)
	}
	private, _ := filepath.Glob(f.path("secrets/*"))
	outside := []string{f.passwordFile, cfg.RootKey}
	if record := statedir.Database(f.dir, cfg.Database); !sqldb.IsURL(record) {
		private = append(private, record, record+"-wal", record+"-shm") // the last two come and go
		outside = append(outside, record)
	}
	for _, p := range append(private, f.passwordFile, cfg.RootKey) {
		if p != "" {
			look(p, fileperm.Secret)
		}
	}
	found = append(found, fileperm.Parents(f.path(statedir.ConfigFile), owners...)...)
	for _, p := range outside {
		if p != "" {
			found = append(found, fileperm.Parents(p, owners...)...)
		}
	}
	seen := map[string]bool{}
	for _, text := range found {
		if !seen[text] {
			out = append(out, exposure{DiagnosisError, text})
		}
		seen[text] = true
	}
	return out
}

// warnOfExposure says at each start and reload what others can read or change. It
// stops nothing: what could be read may have been read, and an authority that does
// not start takes the certificates of all services with it.
func (a *Authority) warnOfExposure(ctx context.Context, cfg policy.Config) {
	for _, e := range a.files.exposures(cfg) {
		a.logger.ErrorContext(ctx, "others can read or change files of the authority", "err", e.text)
	}
}

// permissions reports what others can read or change.
func (d *doctor) permissions(cfg policy.Config) {
	list := d.files.exposures(cfg)
	for _, e := range list {
		d.add("permissions", e.severity, "%s", e.text)
	}
	if len(list) == 0 {
		d.add("permissions", DiagnosisOK, "secrets and record are the owner's alone")
	}
}
