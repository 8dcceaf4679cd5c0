// Package gcm is AES-256-GCM for a flow's payload, which costs more than anything else
// that an agent's own instructions do. The standard library's encrypts a block per
// instruction; where the processor has VAES and VPCLMULQDQ this one does two, with
// AVX2's registers of 32 bytes.
//
// What leaves is the same, bit for bit. Where the processor lacks the instructions, or
// Go runs in FIPS 140 mode, New returns the standard library's, which also does what is
// short.
//
// The package starts no goroutines. An AEAD may be used by several at once.
package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// Sizes, in bytes.
const (
	KeySize = 32
	block   = 16
	eight   = 8 * block
	group   = 16 * block // what one turn of the loops takes
	little  = 1 << 10    // with less the standard library is as quick, or quicker
)

// New returns AES-256-GCM with nonces of 12 bytes and tags of 16. key has KeySize bytes.
func New(key []byte) (cipher.AEAD, error) {
	std, err := standard(key)
	if err != nil || !wide() {
		return std, err
	}
	a := newWide(key)
	if !agrees(a, std) {
		return std, nil
	}
	return &both{AEAD: std, wide: a}, nil
}

// both is an AEAD that does what is little as the standard library does.
type both struct {
	cipher.AEAD
	wide cipher.AEAD
}

// Seal implements cipher.AEAD.
func (b *both) Seal(dst, nonce, plain, additional []byte) []byte {
	if len(plain) < little {
		return b.AEAD.Seal(dst, nonce, plain, additional)
	}
	return b.wide.Seal(dst, nonce, plain, additional)
}

// Open implements cipher.AEAD.
func (b *both) Open(dst, nonce, sealed, additional []byte) ([]byte, error) {
	if len(sealed) < little {
		return b.AEAD.Open(dst, nonce, sealed, additional)
	}
	return b.wide.Open(dst, nonce, sealed, additional)
}

// agrees reports whether two seal and open a message in the same way: an emulator may
// promise instructions that it does not know well. The message goes nowhere, so that its
// nonce may be used again.
func agrees(a, b cipher.AEAD) bool {
	var text [2*group + 5]byte
	nonce, additional := text[:a.NonceSize()], text[:block+1]
	sealed := a.Seal(nil, nonce, text[:], additional)
	if !bytes.Equal(sealed, b.Seal(nil, nonce, text[:], additional)) {
		return false
	}
	plain, err := a.Open(nil, nonce, sealed, additional)
	return err == nil && bytes.Equal(plain, text[:])
}

// standard is the standard library's.
func standard(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("gcm: key of %d bytes, needs %d", len(key), KeySize)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}
