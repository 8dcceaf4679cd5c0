// Package identity holds a box's key pair in the manner of WireGuard: an
// Ed25519 pair (RFC 8032) whose private half is one line of base64 in a file
// and whose public half is pasted into the peer's configuration.
//
// For TLS the pair dresses up as a self-signed certificate. Only the key in it
// means anything: both ends pin the peer's key, so names, issuers and validity
// times are not looked at. A train's clock may be years off.
//
// The package does no I/O and reads no clock; randomness is passed in. It
// starts no goroutines.
package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"time"
)

// MaxFile is the largest key file that is read, in bytes. A key has 45.
const MaxFile = 1 << 10

// Key is a key pair. The zero value is no key.
type Key struct {
	seed   [ed25519.SeedSize]byte
	public [ed25519.PublicKeySize]byte
}

// Generate makes a key pair from 32 bytes of random, which must be
// cryptographically strong.
func Generate(random io.Reader) (Key, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return Key{}, fmt.Errorf("no randomness for a key: %w", err)
	}
	return fromSeed(seed), nil
}

// Parse reads the contents of a private key file. White space around the key
// is accepted.
func Parse(data []byte) (Key, error) {
	const advice = "not a private key: expected one line of 44 characters, as `genkey` prints it"
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSpace(data)))
	if err != nil || len(raw) != ed25519.SeedSize {
		return Key{}, errors.New(advice) // the decoder's error could quote the key
	}
	return fromSeed([ed25519.SeedSize]byte(raw)), nil
}

func fromSeed(seed [ed25519.SeedSize]byte) Key {
	pair := ed25519.NewKeyFromSeed(seed[:])
	return Key{seed: seed, public: [ed25519.PublicKeySize]byte(pair.Public().(ed25519.PublicKey))}
}

// Encode returns the contents of the private key file: the seed in base64 and
// a newline. It is a secret.
func (k Key) Encode() []byte {
	return append(base64.StdEncoding.AppendEncode(nil, k.seed[:]), '\n')
}

// Public returns the public key.
func (k Key) Public() [32]byte { return k.public }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// String returns the public key in base64. It stands for the pair in logs, so
// that the private half never gets there.
func (k Key) String() string { return EncodePublic(k.public) }

// GoString is String, for %#v.
func (k Key) GoString() string { return "identity.Key(" + k.String() + ")" }

// EncodePublic returns a public key as configurations hold it: 44 characters
// of base64.
func EncodePublic(public [32]byte) string {
	return base64.StdEncoding.EncodeToString(public[:])
}

// CheckMode refuses a private key file that others than its owner may read or
// change, or that is no regular file. The name stands in the error.
func CheckMode(name string, mode fs.FileMode) error {
	if !mode.IsRegular() {
		return fmt.Errorf("%s is not a regular file: give the path of a private key file", name)
	}
	if mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others can read or change the private key: run chmod 600 %s", name, mode.Perm(), name)
	}
	return nil
}

// Certificate returns a self-signed certificate of the key for TLS 1.3. It is
// valid from ten years before now to ninety years after, for the sake of tools
// that look; PeerKey does not.
func (k Key) Certificate(now time.Time) (tls.Certificate, error) {
	if k.IsZero() {
		return tls.Certificate{}, errors.New("no private key: generate one with `genkey`")
	}
	pair := ed25519.NewKeyFromSeed(k.seed[:])
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "hawser"},
		NotBefore:    now.UTC().AddDate(-10, 0, 0),
		NotAfter:     now.UTC().AddDate(90, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	// An Ed25519 signature is deterministic (RFC 8032 section 5.1.6), so no
	// randomness is used.
	der, err := x509.CreateCertificate(nil, template, template, pair.Public(), pair)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of the box's key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: pair}, nil
}

// PeerKey returns the Ed25519 public key of a peer from the certificates that
// it sent in a TLS handshake (tls.Config.VerifyPeerCertificate). There must be
// one, signed by its own key. The caller compares the key with the pinned one;
// TLS itself proves that the peer holds the private half.
func PeerKey(rawCerts [][]byte) (public [32]byte, err error) {
	if len(rawCerts) != 1 {
		return public, fmt.Errorf("the peer sent %d certificates: expected one", len(rawCerts))
	}
	cert, err := x509.ParseCertificate(rawCerts[0])
	if err != nil {
		return public, fmt.Errorf("the peer's certificate: %w", err)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != len(public) {
		return public, fmt.Errorf("the peer's certificate holds a key of type %s: expected Ed25519", cert.PublicKeyAlgorithm)
	}
	if cert.SignatureAlgorithm != x509.PureEd25519 {
		return public, fmt.Errorf("the peer's certificate is signed with %s: expected Ed25519", cert.SignatureAlgorithm)
	}
	if !ed25519.Verify(key, cert.RawTBSCertificate, cert.Signature) {
		return public, errors.New("the peer's certificate is not signed by its own key")
	}
	return [32]byte(key), nil
}
