// Package ber converts BER to DER (X.690), as far as readers of DER need it: each length
// is definite and as short as possible (X.690 §10.1), and each string is in one piece
// (§10.2). OpenSSL, Java and NSS write PKCS #7 and PKCS #12 with indefinite lengths,
// because they do not know the length when they begin.
//
// What only a schema could tell stays as it is: the order of sets, default values, and
// strings in pieces behind an implicit tag. DER comes out unchanged.
package ber

import (
	"errors"
	"fmt"
	"math/bits"
)

const (
	// MaxSize bounds the input, in bytes. Stores and envelopes in use have kilobytes.
	MaxSize = 8 << 20
	// MaxDepth bounds the nesting of values, because each level is a call of a function;
	// OpenSSL allows 30.
	MaxDepth = 64
)

var (
	// ErrDamaged reports input that is not BER.
	ErrDamaged = errors.New("it is no BER")
	// ErrLarge reports input that exceeds MaxSize or MaxDepth.
	ErrLarge = fmt.Errorf("it is larger than %d MiB, or has values in values more than %d deep", MaxSize>>20, MaxDepth)
)

const (
	constructed = 0x20
	indefinite  = 0x80
	tagNumber   = 0x1f

	tagBitString = 3
)

// strings is a set of the universal tag numbers of strings, bit by bit: those may come in
// pieces (X.690 §8.6, §8.7 and §8.23).
const strings = 1<<tagBitString | 1<<4 | 1<<12 | 1<<18 | 1<<19 | 1<<20 | 1<<21 | 1<<22 | 1<<23 | 1<<24 | 1<<25 | 1<<26 | 1<<27 | 1<<28 | 1<<30

// ToDER converts one value; bytes behind it are an error. The result is a new slice
// of at most three times the size.
func ToDER(data []byte) ([]byte, error) {
	if len(data) > MaxSize {
		return nil, ErrLarge
	}
	out, rest, err := value(make([]byte, 0, len(data)), data, MaxDepth)
	if err == nil && len(rest) > 0 {
		err = ErrDamaged
	}
	return out, err
}

// value appends the first value of data to out, in DER, and returns what follows it. A
// constructed string becomes a primitive one of the same type.
func value(out, data []byte, depth int) (_, rest []byte, err error) {
	h, body, err := readHeader(data)
	switch {
	case err != nil:
		return nil, nil, err
	case h.tag[0]&constructed == 0:
		out = append(appendHeader(out, h.tag, h.length), body[:h.length]...)
		return out, body[h.length:], nil
	case depth == 0:
		return nil, nil, ErrLarge
	}
	var content []byte
	if content, rest, err = inside(h, body, depth-1); err != nil {
		return nil, nil, err
	}
	if number := h.tag[0] &^ constructed; number < tagNumber && strings>>number&1 == 1 {
		if content, err = joined(content, number == tagBitString); err != nil {
			return nil, nil, err
		}
		h.tag = []byte{number}
	}
	return append(appendHeader(out, h.tag, len(content)), content...), rest, nil
}

// inside converts the values in a constructed one. An indefinite length ends with two
// zero bytes (X.690 §8.1.5); that they are missing means the input was cut off.
func inside(h header, body []byte, depth int) (content, rest []byte, err error) {
	if h.length >= 0 {
		body, rest = body[:h.length], body[h.length:]
	}
	for len(body) > 0 {
		if h.length < 0 && len(body) >= 2 && body[0] == 0 && body[1] == 0 {
			return content, body[2:], nil
		}
		if content, body, err = value(content, body, depth); err != nil {
			return nil, nil, err
		}
	}
	if h.length < 0 {
		return nil, nil, ErrDamaged
	}
	return content, rest, nil
}

// joined joins the pieces of a string; they were converted to DER before. Each piece of a
// bit string begins with the number of its unused bits, and only the last piece may have
// any (X.690 §8.6.4).
func joined(pieces []byte, bits bool) (content []byte, err error) {
	if bits {
		content = []byte{0}
	}
	for len(pieces) > 0 {
		h, body, err := readHeader(pieces)
		if err != nil || h.tag[0]&constructed != 0 {
			return nil, ErrDamaged
		}
		piece := body[:h.length]
		if bits {
			if len(piece) == 0 || content[0] != 0 {
				return nil, ErrDamaged
			}
			content[0], piece = piece[0], piece[1:]
		}
		content, pieces = append(content, piece...), body[h.length:]
	}
	return content, nil
}

type header struct {
	tag    []byte
	length int // -1: indefinite
}

// readHeader reads tag and length (X.690 §8.1.2, §8.1.3). It guarantees that body, which
// is what follows the header, has at least length bytes.
func readHeader(data []byte) (h header, body []byte, err error) {
	n := 1
	if len(data) > 0 && data[0]&tagNumber == tagNumber { // a tag of several bytes
		for n < len(data) && data[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if len(data) <= n {
		return h, nil, ErrDamaged
	}
	h.tag, body = data[:n], data[n+1:]
	switch size := int(data[n]); {
	case size < indefinite:
		h.length = size
	case size == indefinite && h.tag[0]&constructed != 0:
		h.length = -1
	default:
		size &= 0x7f
		if size == 0 || size > len(body) {
			return h, nil, ErrDamaged
		}
		for _, b := range body[:size] {
			if h.length = h.length<<8 | int(b); h.length > MaxSize {
				return h, nil, ErrDamaged // the input is never that long
			}
		}
		body = body[size:]
	}
	if h.length > len(body) {
		return h, nil, ErrDamaged
	}
	return h, body, nil
}

func appendHeader(out, tag []byte, length int) []byte {
	out = append(out, tag...)
	size := 1
	if length >= 0x80 {
		size = (bits.Len(uint(length)) + 7) / 8
		out = append(out, 0x80|byte(size&0x7f))
	}
	for size--; size >= 0; size-- {
		out = append(out, byte(length>>(8*size)&0xff))
	}
	return out
}
