package statedir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
)

// Exposure is a file or directory of an authority that a user can read or change who is
// neither root nor the user of this process.
type Exposure struct {
	Text  string
	Owner bool // this user owns the directory, which may be intended
}

// Exposures examines the directory, the files that pki.yaml keeps elsewhere (rootKey and
// database are its settings), the password files, the files with PINs of key stores, and the directories above each. If root
// calls it for the directory of the user that serve runs as, this user may own all of it,
// and is named.
func (f Dir) Exposures(rootKey, database string) (out []Exposure) {
	var owners []int
	if info, err := os.Stat(f.Path); err == nil {
		if uid, ok := fileperm.Owner(info); ok && uid != 0 && uid != os.Geteuid() {
			out = append(out, Exposure{Owner: true, Text: fmt.Sprintf(
				"%s belongs to user %d, who can read and change all of it: run commands and serve as that user, or take it with chown -R", f.Path, uid)})
			owners = append(owners, uid)
		}
	}
	var found []string
	look := func(path string, most fs.FileMode) { found = append(found, fileperm.File(path, most, owners...)...) }
	for _, dir := range []string{f.Path, f.File("secrets"), f.File("certs")} {
		look(dir, 0o750)
	}
	look(f.File(ConfigFile), durable.Public)
	public, _ := filepath.Glob(f.File("certs/*")) // the patterns are well formed
	for _, p := range public {
		look(p, durable.Public)
	}
	private, _ := filepath.Glob(f.File("secrets/*"))
	apart := []string{f.PasswordFile, f.RootPasswordFile, keystore.Path(rootKey), keystore.PINFile(rootKey)}
	uris, _ := filepath.Glob(f.File("certs/*.uri"))
	for _, p := range uris {
		if uri, err := os.ReadFile(p); err == nil {
			apart = append(apart, keystore.PINFile(strings.TrimSpace(string(uri))))
		}
	}
	outside := apart
	if record := Database(f.Path, database); !sqldb.IsURL(record) {
		private = append(private, record, record+"-wal", record+"-shm") // the last two exist while it is open
		outside = append(outside, record)
	}
	for _, p := range append(private, apart...) {
		if p != "" {
			look(p, fileperm.Secret)
		}
	}
	found = append(found, fileperm.Parents(f.File(ConfigFile), owners...)...)
	for _, p := range outside {
		if p != "" {
			found = append(found, fileperm.Parents(p, owners...)...)
		}
	}
	seen := map[string]bool{}
	for _, text := range found {
		if !seen[text] {
			out = append(out, Exposure{Text: text})
		}
		seen[text] = true
	}
	return out
}
