package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// RekeyRecords is the number of records per direction after which both ends
// change to the next key. The count is exact and needs no message. The key is
// changed far below AES-GCM's limits so that one captured key tells little.
const RekeyRecords = 1 << 28

// tagSize is what sealing adds to a header block, in bytes.
const tagSize = 16

// Labels of the key schedule (PROTOCOL.md "Link records").
const (
	labelKey   = "hawser link v1 key"
	labelNext  = "hawser link v1 next"
	secretSize = 32
)

// labels are the exporter's for a strand: edge to cloud, cloud to edge.
type labels struct{ up, down string }

var (
	bulkLabels   = labels{"EXPORTER-hawser link v1 edge to cloud", "EXPORTER-hawser link v1 cloud to edge"}
	urgentLabels = labels{"EXPORTER-hawser link v2 urgent edge to cloud", "EXPORTER-hawser link v2 urgent cloud to edge"}
)

// twinLabels are those of the twin of an urgent stream, or connection.
var twinLabels = labels{"EXPORTER-hawser link v4 twin edge to cloud", "EXPORTER-hawser link v4 twin cloud to edge"}

// besideLabel is the exporter's for the token of a connection (PROTOCOL.md section 4.4).
const besideLabel = "EXPORTER-hawser link v3 beside"

// sealer seals or opens the header blocks of one direction, in order. The
// nonce is the number of the record, counted from 0 and never reset, so a
// record that is lost, repeated or moved fails like a forged one.
type sealer struct {
	aead   cipher.AEAD
	secret []byte
	every  uint64 // records per key
	count  uint64 // records so far
	nonce  [12]byte
}

// newSealer starts at record 0 with the key that follows from secret.
func newSealer(secret []byte, every uint64) (*sealer, error) {
	s := &sealer{secret: secret, every: every}
	return s, s.deriveKey()
}

// seal appends the sealed block to dst. prefix is authenticated with it.
func (s *sealer) seal(dst, prefix, block []byte) ([]byte, error) {
	if err := s.advance(); err != nil {
		return dst, err
	}
	return s.aead.Seal(dst, s.nonce[:], block, prefix), nil
}

// open decrypts sealed in place and returns the block.
func (s *sealer) open(prefix, sealed []byte) ([]byte, error) {
	if err := s.advance(); err != nil {
		return nil, err
	}
	block, err := s.aead.Open(sealed[:0], s.nonce[:], sealed, prefix)
	if err != nil {
		return nil, ErrTampered
	}
	return block, nil
}

// advance sets the nonce for the next record, and its key where it changes.
func (s *sealer) advance() error {
	if s.count > 0 && s.count%s.every == 0 {
		next, err := hkdf.Expand(sha256.New, s.secret, labelNext, secretSize)
		if err != nil {
			return fmt.Errorf("next link key: %w", err)
		}
		clear(s.secret)
		s.secret = next
		if err := s.deriveKey(); err != nil {
			return err
		}
	}
	binary.BigEndian.PutUint64(s.nonce[4:], s.count)
	s.count++
	return nil
}

func (s *sealer) deriveKey() error {
	key, err := hkdf.Expand(sha256.New, s.secret, labelKey, 32)
	if err != nil {
		return fmt.Errorf("link key: %w", err)
	}
	block, err := aes.NewCipher(key)
	clear(key)
	if err != nil {
		return fmt.Errorf("link key: %w", err)
	}
	s.aead, err = cipher.NewGCM(block)
	return err
}
