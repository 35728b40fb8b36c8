package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// askToken asks a running authority for a token, with the certificate of an enroller.
func askToken(_ *ui.UI, c *cli.Context, service string, names []string) (secret.String, error) {
	for _, flag := range []string{"revoke", "provisioner"} {
		if c.IsSet(flag) {
			return secret.String{}, ui.UsageErrorf("--%s does not go with --%s", flag, flagCert)
		}
	}
	if err := httpsURL(flagCAURL, c.String(flagCAURL)); err != nil {
		return secret.String{}, err
	}
	cert, roots, err := clientFilesOf(c).read()
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
	token, err := client.EnrolmentToken(ctx, stepapi.TokenRequest{Service: service, Names: names, Lifetime: durationOf(c, "lifetime").String()})
	if err == nil {
		return token, nil
	}
	return token, hintRefused(fmt.Errorf("making a token for %s: %w", service, err), "enrollers and profiles in pki.yaml of the authority say who may enrol what")
}
