//go:build tpmkms

package keystore

import _ "go.step.sm/crypto/kms/tpmkms" // the store tpmkms:
