package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"hawser/pkg/card"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// secretSize is the length of an association's secret, in bytes.
const secretSize = 32

// Labels of the keys that are derived from the secret (PROTOCOL.md 7.3).
const (
	labelJoin = "hawser 1 gateway join"
	labelUp   = "hawser 1 gateway end up"
	labelDown = "hawser 1 gateway end down"
)

// Association is what one handshake has given a client and its gateway. Its
// methods may be called from any goroutine.
type Association struct {
	ID       [16]byte
	Peer     string   // the other end's name
	Key      [32]byte // the other end's
	Services []string // names, by the index that a join gives
	large    bool     // both ends take records of more than buffer.Plain
	again    bool     // connections carry one flow after another

	gate    *Gate          // the gateway's; nil: this is the client
	hangUp  func()         // ends the control connection; the gateway's
	servers []*Server      // theirs; the gateway's
	gateway netip.AddrPort // where its lanes connect to; the client's
	ring    *card.Keyring
	join    cipher.AEAD
	endOut  cipher.AEAD
	endIn   cipher.AEAD
	lanes   []*Lane       // by worker
	numbers atomic.Uint64 // of flows that have been given out; the client's
	account *account

	mu   sync.Mutex
	used once // flows that have joined; the gateway's
	over bool // nobody may join any more
}

// newAssociation derives the keys and makes a lane for each port.
func newAssociation(role card.Role, secret []byte, ports []*Port) (*Association, error) {
	a := &Association{account: &account{}}
	var err error
	if a.ring, err = card.NewKeyring(secret, role); err != nil {
		return nil, err
	}
	for label, to := range map[string]*cipher.AEAD{labelJoin: &a.join, labelUp: &a.endOut, labelDown: &a.endIn} {
		if *to, err = derive(secret, label); err != nil {
			return nil, fmt.Errorf("gateway keys: %w", err)
		}
	}
	if role == card.Cloud {
		a.endOut, a.endIn = a.endIn, a.endOut
	}
	for _, p := range ports {
		a.lanes = append(a.lanes, newLane(p, a))
	}
	return a, nil
}

func derive(secret []byte, label string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, label, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Lane returns the association's stream.Tunnel for a worker.
func (a *Association) Lane(worker int) *Lane { return a.lanes[worker] }

// Ring is the keyring of a lane, as relay.Options.Ring wants it.
func Ring(t stream.Tunnel) (*card.Keyring, error) {
	l, ok := t.(*Lane)
	if !ok {
		return nil, errors.New("no lane of an association")
	}
	return l.a.ring, nil
}

// nonce of a flow: each key protects one message per flow.
func nonce(flow uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], flow)
	return n[:]
}

// appendJoin appends a whole join.
func (a *Association) appendJoin(b []byte, flow uint64, service uint16) []byte {
	start := len(b)
	b = wire.AppendJoin(b, wire.Join{Association: a.ID, Flow: flow, Service: service})
	return a.join.Seal(b, nonce(flow), nil, b[start:])
}

// Reasons why a join is refused.
var (
	errForged   = errors.New("not authentic")
	errRepeated = errors.New("the flow's number was used before")
	errOver     = errors.New("the association has ended")
)

// admit decides on a join, all of its bytes in b. Only an authentic one uses
// its flow up.
func (a *Association) admit(j wire.Join, b []byte) error {
	if _, err := a.join.Open(nil, nonce(j.Flow), b[wire.JoinCovered:], b[:wire.JoinCovered]); err != nil {
		return errForged
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over:
		return errOver
	case int(j.Service) >= len(a.Services):
		return fmt.Errorf("service %d was not granted", j.Service)
	case !a.used.take(j.Flow):
		return errRepeated
	}
	return nil
}

// end keeps everybody from joining. Connections that have joined live on.
func (a *Association) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

// endFlags marks the header of the record that ends a direction.
const endFlags = 0x80

// isEnd reports whether a record's header is that of an end.
func isEnd(header []byte) bool {
	return binary.BigEndian.Uint16(header) == wire.EndSize-card.HeaderLen && header[2] == endFlags && header[3] == 0
}

// covered is what an end's tag authenticates: its header, and how many bytes
// of records came before it.
func covered(offset uint64) []byte {
	b := [12]byte{1: wire.EndSize - card.HeaderLen, 2: endFlags}
	binary.BigEndian.PutUint64(b[card.HeaderLen:], offset)
	return b[:]
}

// appendEnd appends the record that ends our direction after offset bytes.
func (a *Association) appendEnd(b []byte, flow, offset uint64) []byte {
	c := covered(offset)
	b = append(b, c[:card.HeaderLen]...)
	return a.endOut.Seal(b, nonce(flow), nil, c)
}

// checkEnd reports whether the peer ends its direction after offset bytes.
func (a *Association) checkEnd(record []byte, flow, offset uint64) bool {
	_, err := a.endIn.Open(nil, nonce(flow), record[card.HeaderLen:], covered(offset))
	return err == nil
}
