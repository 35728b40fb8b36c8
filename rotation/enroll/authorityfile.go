package enroll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/strictjson"
)

const (
	// authorityName is the file in [Config.Dir] that says where its certificate comes from.
	authorityName = "authority.json"
	// maxAuthorityFile bounds its length, in bytes. Normal ones are below 500.
	maxAuthorityFile = 4 << 10
	// authorityVersion is the only version of the file so far.
	authorityVersion = 1
)

// origin is the content of the file [authorityName]: how to renew the certificate beside it.
// It has nothing secret. Owner and mode of the files are not in it, because a renewal keeps
// those that the files have.
type origin struct {
	Version         int     `json:"version"`
	URL             string  `json:"url"`
	RootFingerprint string  `json:"root_fingerprint,omitempty"`
	AuthorityName   string  `json:"authority_name,omitempty"`
	KeyType         KeyType `json:"key_type,omitempty"`
}

// parseOrigin parses the file strictly: one object with known members, whose values [New]
// accepts.
func parseOrigin(data []byte) (o origin, err error) {
	if err := strictjson.Decode(data, maxAuthorityFile, &o); err != nil {
		return origin{}, err
	}
	if o.Version != authorityVersion {
		return origin{}, fmt.Errorf("version %d, and this program knows version %d", o.Version, authorityVersion)
	}
	if _, err := parseURL(o.URL); err != nil {
		return origin{}, err
	}
	if o.RootFingerprint != "" {
		if _, err := parseFingerprint(o.RootFingerprint); err != nil {
			return origin{}, err
		}
	}
	if err := errors.Join(checkAuthorityName(o.AuthorityName), o.KeyType.check()); err != nil {
		return origin{}, err
	}
	return o, nil
}

func (o origin) encode() ([]byte, error) {
	data, err := json.MarshalIndent(o, "", "  ")
	return append(data, '\n'), err
}

// ReadConfig reads where the certificate in the identity directory dir comes from. [Issue],
// [Renew] and [Source] store that there, in authority.json. URL, RootFingerprint,
// AuthorityName, KeyType and Dir of the result are set. The error matches fs.ErrNotExist if
// there is no such file.
//
// A file that others can write or replace is refused, because they could choose the
// authority. The file may belong to this user, to root or to the owner of dir.
func ReadConfig(dir string) (Config, error) {
	o, err := readOrigin(dir)
	if err != nil {
		return Config{}, fmt.Errorf("reading where the certificate in %s comes from: %w", dir, err)
	}
	return Config{URL: o.URL, RootFingerprint: o.RootFingerprint, AuthorityName: o.AuthorityName, KeyType: o.KeyType, Dir: dir}, nil
}

func readOrigin(dir string) (origin, error) {
	path := filepath.Join(dir, authorityName)
	info, err := os.Lstat(path)
	if err != nil {
		return origin{}, err
	}
	if !info.Mode().IsRegular() {
		return origin{}, fmt.Errorf("%s is no regular file", path)
	}
	var owners []int
	if of, err := os.Stat(dir); err == nil {
		if uid, ok := fileperm.Owner(of); ok {
			owners = append(owners, uid)
		}
	}
	if findings := append(fileperm.File(path, durable.Public, owners...), fileperm.Parents(path, owners...)...); len(findings) > 0 {
		return origin{}, fmt.Errorf("others can change it: %s", strings.Join(findings, "; "))
	}
	f, err := os.Open(path)
	if err != nil {
		return origin{}, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	data, err := io.ReadAll(io.LimitReader(f, maxAuthorityFile+1))
	if err != nil {
		return origin{}, err
	}
	o, err := parseOrigin(data)
	if err != nil {
		return origin{}, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// storeOrigin writes where i comes from, if the file says something else. A fingerprint or a
// name of the authority in the file stays while the authority is the same.
func (s *Source) storeOrigin(i *identity) error {
	if s.store == nil {
		return nil
	}
	o := origin{authorityVersion, s.cfg.URL, s.cfg.RootFingerprint, s.cfg.AuthorityName, keyTypeOf(i.key)}
	had, err := readOrigin(s.store.dir)
	if err == nil && had.URL == o.URL && !i.newAuthority {
		if o.RootFingerprint == "" {
			o.RootFingerprint = had.RootFingerprint
		}
		if o.AuthorityName == "" {
			o.AuthorityName = had.AuthorityName
		}
	}
	if err == nil && o == had {
		return nil
	}
	data, err := o.encode()
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.store.dir, authorityName), data, durable.Public)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil // this user cannot renew here either, and that will fail with an error
	}
	return err
}
