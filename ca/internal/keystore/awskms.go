//go:build awskms

package keystore

import _ "go.step.sm/crypto/kms/awskms" // the store awskms:
