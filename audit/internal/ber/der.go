package ber

import "fmt"

// InSequence returns what follows the header of a SEQUENCE, or nil. The rest of the SEQUENCE
// may be missing.
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

// Definite converts an envelope of indefinite length (X.690 §8.1.3.6) to DER. It returns any
// other envelope as it is.
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
