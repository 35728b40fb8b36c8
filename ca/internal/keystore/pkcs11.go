//go:build pkcs11 && cgo

package keystore

import _ "go.step.sm/crypto/kms/pkcs11" // the store pkcs11:
