package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

const flagCACert = "ca-cert"

// askToken asks a running authority for a token, with the certificate of an enroller.
func (u *ui) askToken(c *cli.Context, service string, names []string) (secret.String, error) {
	for _, flag := range []string{"revoke", "provisioner"} {
		if c.IsSet(flag) {
			return secret.String{}, usagef("--%s does not go with --%s", flag, flagCert)
		}
	}
	if err := httpsURL(flagCAURL, c.String(flagCAURL)); err != nil {
		return secret.String{}, err
	}
	cert, roots, err := enrollerFiles(c.String(flagCert), c.String(flagKey), c.String(flagCACert))
	if err != nil {
		return secret.String{}, err
	}
	client, err := enroll.NewClient(c.String(flagCAURL), roots, cert)
	if err != nil {
		return secret.String{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.Context, obtainTimeout)
	defer cancel()
	token, err := client.EnrolmentToken(ctx, stepapi.TokenRequest{Service: service, Names: names, Lifetime: spanOf(c, "lifetime").String()})
	if err == nil {
		return token, nil
	}
	err = fmt.Errorf("making a token for %s: %w", service, err)
	if answered, ok := errors.AsType[*enroll.Error](err); ok {
		switch answered.Status {
		case http.StatusUnauthorized:
			return token, withHint(err, "the certificate of --%s must be a good one of this authority: renew it, or enrol again", flagCert)
		case http.StatusForbidden:
			return token, withHint(err, "enrollers and profiles in pki.yaml of the authority say who may enrol what")
		case http.StatusNotFound:
			return token, withHint(err, "this authority makes no tokens over HTTP: is it an artstore-pki of this version?")
		}
	}
	return token, err
}

// enrollerFiles reads certificate, key and trust bundle: from a directory as issue
// writes it, or from files.
func enrollerFiles(certPath, keyPath, rootsPath string) (*tls.Certificate, []*x509.Certificate, error) {
	if info, err := os.Stat(certPath); err == nil && info.IsDir() {
		dir := certPath
		certPath = filepath.Join(dir, "tls.crt")
		if keyPath == "" {
			keyPath = filepath.Join(dir, "tls.key")
		}
		if rootsPath == "" {
			rootsPath = filepath.Join(dir, "ca.crt")
		}
	}
	if keyPath == "" || rootsPath == "" {
		return nil, nil, usagef("--%s is a file: want --%s and --%s with it", flagCert, flagKey, flagCACert)
	}
	chain, err := readCertificates(certPath)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := pemfile.PrivateKey(data)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the key %s: %w", keyPath, err)
	}
	if len(chain) == 0 || !pemfile.Fits(chain[0], key) {
		return nil, nil, fmt.Errorf("reading the key %s: it is not that of the certificate in %s", keyPath, certPath)
	}
	roots, err := readCertificates(rootsPath)
	if err != nil {
		return nil, nil, err
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, roots, nil
}
