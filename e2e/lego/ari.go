package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/go-acme/lego/v5/certcrypto"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/lego"
	"github.com/go-acme/lego/v5/registration"
)

// ari obtains a certificate and does what its renewal information says (RFC 9773): not to renew
// yet, and to renew after order, a command that gets the serial as its last argument, has
// ordered it. A second renewal of the same certificate is a conflict that the library solves.
func ari(ctx context.Context, url, domain, port, dir string, order []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	u := &user{key: key}
	conf := lego.NewConfig(u)
	conf.CADirURL = url
	client, err := lego.NewClient(conf)
	if err != nil {
		return err
	}
	if err := solve(client, "http-01", port); err != nil {
		return err
	}
	if u.account, err = client.Registration.Register(ctx, registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	first, err := client.Certificate.Obtain(ctx, certificate.ObtainRequest{Domains: []string{domain}, KeyType: certcrypto.EC256, Bundle: true})
	if err != nil {
		return fmt.Errorf("obtaining: %w", err)
	}
	chain, err := certcrypto.ParsePEMBundle(first.Certificate)
	if err != nil {
		return err
	}
	due := func() (*time.Time, error) {
		info, err := client.Certificate.GetRenewalInfo(ctx, chain[0])
		if err != nil {
			return nil, fmt.Errorf("asking for renewal information: %w", err)
		}
		if info.RetryAfter <= 0 {
			return nil, errors.New("renewal information without Retry-After")
		}
		return info.ShouldRenewAt(time.Now(), time.Minute), nil
	}
	if at, err := due(); err != nil || at != nil {
		return errors.Join(err, fmt.Errorf("a new certificate is to be renewed at %v", at))
	}
	out, err := exec.CommandContext(ctx, order[0], append(order[1:], chain[0].SerialNumber.String())...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ordering: %w: %s", err, out)
	}
	at, err := due()
	if err != nil || at == nil {
		return errors.Join(err, errors.New("the order has not moved the window"))
	}
	time.Sleep(time.Until(*at))
	options := &certificate.RenewOptions{KeyType: certcrypto.EC256, Bundle: true, UseARICertID: true}
	second, err := client.Certificate.Renew(ctx, *first, options)
	if err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	// The authority refuses a second replacement. The library takes that for what it is, and
	// orders without it.
	if _, err = client.Certificate.Renew(ctx, *first, options); err != nil {
		return fmt.Errorf("renewing the same certificate again: %w", err)
	}
	for name, c := range map[string]*certificate.Resource{"first.pem": first, "second.pem": second} {
		if err := os.WriteFile(filepath.Join(dir, name), c.Certificate, 0o600); err != nil {
			return err
		}
	}
	return nil
}
