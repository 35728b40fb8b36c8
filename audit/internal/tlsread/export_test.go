package tlsread

import (
	"bytes"
	"encoding/binary"
	"io"
)

// AskFor is Ask with one cipher suite of TLS 1.3 in place of the three.
func AskFor(conn io.ReadWriter, offer Offer, suite uint16) (Answer, error) {
	h, err := newHello(offer)
	if err != nil {
		return Answer{}, err
	}
	var all, one []byte
	for _, s := range suites13 {
		all, one = binary.BigEndian.AppendUint16(all, s), binary.BigEndian.AppendUint16(one, suite)
	}
	h.message = bytes.Replace(h.message, all, one, 1)
	if _, err := conn.Write(h.record()); err != nil {
		return Answer{}, err
	}
	return read(conn, h.secret)
}
