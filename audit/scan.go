package audit

import (
	"bytes"
	"encoding/base64"
)

// A certificate in PEM, written as everybody writes it: the marker alone on its
// line, lines of 64 characters, the end alone on its line (RFC 7468 section 3). Whatever is
// not exactly that goes to encoding/pem.
const (
	plainBegin = "-----BEGIN CERTIFICATE-----\n"
	plainEnd   = "-----END CERTIFICATE-----"
	plainLine  = 64
)

// plainBlock decodes the block at the beginning of data, if it is a plain one, into
// buf as far as that has room.
func plainBlock(data, buf []byte) (der, rest []byte, ok bool) {
	body, ok := bytes.CutPrefix(data, []byte(plainBegin))
	if !ok {
		return nil, nil, false
	}
	end := bytes.IndexByte(body, '-') // no letter of base64
	if end < 2 || body[end-1] != '\n' {
		return nil, nil, false
	}
	rest, ok = bytes.CutPrefix(body[end:], []byte(plainEnd))
	if !ok || len(rest) > 0 && rest[0] != '\n' {
		return nil, nil, false
	}
	body, rest = body[:end-1], bytes.TrimPrefix(rest, []byte("\n"))
	der = buf
	if size := len(body)/(plainLine+1)*(plainLine/4*3) + plainLine; size > len(der) {
		der = make([]byte, size)
	}
	n := 0
	for ; len(body) > plainLine; body = body[plainLine+1:] {
		got, err := base64.StdEncoding.Decode(der[n:], body[:plainLine])
		if n += got; err != nil || got != plainLine/4*3 || body[plainLine] != '\n' {
			return nil, nil, false
		}
	}
	got, err := base64.StdEncoding.Decode(der[n:], body)
	n += got
	return der[:n:n], rest, err == nil && !bytes.ContainsAny(body, "\r\n")
}
