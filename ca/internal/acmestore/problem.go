package acmestore

import (
	"encoding/json"

	"github.com/smallstep/certificates/acme"
)

// problemJSON keeps an error of ACME as its client sees it; "" for none.
func problemJSON(e *acme.Error) (string, error) {
	if e == nil {
		return "", nil
	}
	b, err := json.Marshal(e)
	return string(b), err
}

func parseProblem(text string) (*acme.Error, error) {
	if text == "" {
		return nil, nil
	}
	e := new(acme.Error)
	return e, json.Unmarshal([]byte(text), e)
}
