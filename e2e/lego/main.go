// Command lego obtains, renews and revokes a certificate with the library of lego
// v5, for scripts/interop-acme.sh. It is a module of its own, so that the library
// never enters go.mod; its command line would bring two hundred DNS providers.
//
//	lego DIRECTORY_URL KIND DOMAIN WHERE DIR [KEY_FILE]
//	lego ari DIRECTORY_URL DOMAIN WHERE DIR COMMAND ARG…
//
// KIND is http-01 or tls-alpn-01, to be answered on port WHERE of 127.0.0.1, or
// dns-01, whose record becomes a file in the directory WHERE. DIR gets first.pem
// and second.pem, before and after the renewal; both are revoked at the end. The
// root is what LEGO_CA_CERTIFICATES names.
//
// KEY_FILE is an external account key, as "artstore-pki acme eab create -o json"
// writes it. With it the account is bound, orders name the profile web, and the key
// of the account changes between the two certificates.
//
// With ari it renews when renewal information says so, which is after COMMAND, with the
// serial as its last argument, has ordered it.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/certcrypto"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/go-acme/lego/v5/challenge/http01"
	"github.com/go-acme/lego/v5/challenge/tlsalpn01"
	"github.com/go-acme/lego/v5/lego"
	"github.com/go-acme/lego/v5/registration"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lego:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 5 && args[0] == "ari" {
		return ari(ctx, args[1], args[2], args[3], args[4], args[5:])
	}
	if len(args) != 5 && len(args) != 6 {
		return errors.New("want DIRECTORY_URL KIND DOMAIN WHERE DIR [KEY_FILE]")
	}
	url, kind, domain, where, dir := args[0], args[1], args[2], args[3], args[4]
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
	if err := solve(client, kind, where); err != nil {
		return err
	}
	profile := ""
	if len(args) == 6 {
		profile = "web"
		err = bind(ctx, client, u, args[5])
	} else {
		u.account, err = client.Registration.Register(ctx, registration.RegisterOptions{TermsOfServiceAgreed: true})
	}
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	first, err := client.Certificate.Obtain(ctx, certificate.ObtainRequest{Domains: []string{domain}, KeyType: certcrypto.EC256, Bundle: true, Profile: profile})
	if err != nil {
		return fmt.Errorf("obtaining: %w", err)
	}
	if profile != "" {
		if err := changeKey(ctx, client, u); err != nil {
			return fmt.Errorf("changing the key of the account: %w", err)
		}
	}
	second, err := client.Certificate.Renew(ctx, *first, &certificate.RenewOptions{KeyType: certcrypto.EC256, Bundle: true, Profile: profile})
	if err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	for name, c := range map[string]*certificate.Resource{"first.pem": first, "second.pem": second} {
		if err := os.WriteFile(filepath.Join(dir, name), c.Certificate, 0o600); err != nil {
			return err
		}
		if err := client.Certificate.Revoke(ctx, c.Certificate); err != nil {
			return fmt.Errorf("revoking: %w", err)
		}
	}
	return nil
}

func bind(ctx context.Context, client *lego.Client, u *user, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var key struct {
		Kid  string `json:"kid"`
		HMAC string `json:"hmac_key"`
	}
	if err := json.Unmarshal(data, &key); err != nil {
		return err
	}
	u.account, err = client.Registration.RegisterWithExternalAccountBinding(ctx, registration.RegisterEABOptions{TermsOfServiceAgreed: true, Kid: key.Kid, HmacEncoded: key.HMAC})
	return err
}

// changeKey gives the account another key, with which everything goes on.
func changeKey(ctx context.Context, client *lego.Client, u *user) error {
	next, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	if err := client.Registration.KeyRollover(ctx, next); err != nil {
		return err
	}
	u.key = next
	_, err = client.Registration.QueryRegistration(ctx)
	return err
}

func solve(client *lego.Client, kind, where string) error {
	switch kind {
	case "http-01":
		return client.Challenge.SetHTTP01Provider(http01.NewProviderServer("127.0.0.1", where))
	case "tls-alpn-01":
		return client.Challenge.SetTLSALPN01Provider(tlsalpn01.NewProviderServer("127.0.0.1", where))
	case "dns-01":
		return client.Challenge.SetDNS01Provider(records(where), dns01.PropagationWait(0, true))
	}
	return fmt.Errorf("kind %q", kind)
}

// records is a directory that the DNS server of the script reads.
type records string

func (r records) Present(ctx context.Context, domain, _, keyAuth string) error {
	info := dns01.GetChallengeInfo(ctx, domain, keyAuth)
	return os.WriteFile(filepath.Join(string(r), strings.TrimSuffix(info.EffectiveFQDN, ".")), []byte(info.Value+"\n"), 0o600)
}

func (r records) CleanUp(ctx context.Context, domain, _, keyAuth string) error {
	return os.Remove(filepath.Join(string(r), strings.TrimSuffix(dns01.GetChallengeInfo(ctx, domain, keyAuth).EffectiveFQDN, ".")))
}

type user struct {
	key     crypto.Signer
	account *acme.ExtendedAccount
}

func (u *user) GetEmail() string                       { return "" }
func (u *user) GetRegistration() *acme.ExtendedAccount { return u.account }
func (u *user) GetPrivateKey() crypto.Signer           { return u.key }
