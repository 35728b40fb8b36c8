package ber

import "fmt"

// InSequence is what follows the header of a SEQUENCE, of which only the beginning need be there.
func InSequence(head []byte) []byte {
	if len(head) < 2 || head[0] != 0x30 {
		return nil
	}
	length := 0
	if head[1] > 0x80 {
		length = int(head[1] & 0x7f)
	}
	return head[min(len(head), 2+length):]
}

// Definite makes DER of an envelope whose length is not stated, as of what was
// streamed; any other one comes back as it is.
func Definite(data []byte) ([]byte, error) {
	if len(data) < 2 || data[1] != 0x80 {
		return data, nil
	}
	der, err := ToDER(data)
	if err != nil {
		return nil, fmt.Errorf("reading its BER: %w", err)
	}
	return der, nil
}
