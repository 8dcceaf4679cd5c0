package card

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Role says which end of a session a Keyring serves.
type Role uint8

// Roles.
const (
	Edge  Role = iota + 1 // seals edge to cloud, opens cloud to edge
	Cloud                 // the reverse
)

// SecretLen is the length of a session's secret, in bytes.
const SecretLen = 32

// Labels of the derivations (PROTOCOL.md section 6.2).
const (
	labelUp   = "hawser 1 edge to cloud"
	labelDown = "hawser 1 cloud to edge"
	labelKey  = "hawser 1 record key"
	labelNext = "hawser 1 next epoch"
)

// reach is how many epochs a receiver follows ahead, and keeps behind what comes.
const reach = 8

// limits end an epoch of the sealing direction.
type limits struct {
	records int64
	bytes   int64
	age     time.Duration
}

// The AEAD's own bounds (RFC 5116 section 5.1, and NIST SP 800-38D section 8)
// are far above these.
const (
	maxRecords = 1 << 28
	maxBytes   = 1 << 36
	maxAge     = time.Hour
)

// Keyring holds the sealing keys of one session, for both directions. All
// workers of the session share it: epochs must not run apart.
type Keyring struct {
	seal sealRing
	open openRing
}

// NewKeyring derives the keys of a session from its secret (SecretLen bytes).
func NewKeyring(secret []byte, role Role) (*Keyring, error) {
	if len(secret) != SecretLen {
		return nil, fmt.Errorf("card: session secret has %d bytes, needs %d", len(secret), SecretLen)
	}
	labels := [...]string{labelUp, labelDown}
	switch role {
	case Edge:
	case Cloud:
		labels[0], labels[1] = labels[1], labels[0]
	default:
		return nil, fmt.Errorf("card: unknown role %d", role)
	}
	var first [2][]byte
	for i, label := range labels {
		s, err := hkdf.Key(sha256.New, secret, nil, label, SecretLen)
		if err != nil {
			return nil, fmt.Errorf("card: derive direction secret: %w", err)
		}
		first[i] = s
	}
	k := &Keyring{}
	if err := k.seal.start(first[0]); err != nil {
		return nil, err
	}
	if err := k.open.start(first[1]); err != nil {
		return nil, err
	}
	return k, nil
}

// Epochs returns the epoch that is sealed with and the newest one in which a
// record was opened. Both count from 0.
func (k *Keyring) Epochs() (seal, open uint64) {
	return k.seal.current.Load().number, k.open.view.Load().newest
}

// Keys returns what opens the records that come now.
func (k *Keyring) Keys() *Keys { return k.open.view.Load() }

// recordKey is the key of one epoch and direction. Cards that do not compute in
// this process need it in the raw.
type recordKey struct {
	cipher.AEAD
	raw [keyLen]byte
}

// keyLen is the length of a record key, in bytes: AES-256.
const keyLen = 32

// ratchet is a one-way chain of secrets, one per epoch.
type ratchet struct {
	secret [SecretLen]byte // of the epoch that step returns next
}

// step returns the key of the next epoch and forgets that epoch's secret.
func (r *ratchet) step() (*recordKey, error) {
	key, err := hkdf.Expand(sha256.New, r.secret[:], labelKey, keyLen)
	if err != nil {
		return nil, fmt.Errorf("card: derive record key: %w", err)
	}
	next, err := hkdf.Expand(sha256.New, r.secret[:], labelNext, SecretLen)
	if err != nil {
		return nil, fmt.Errorf("card: derive next epoch: %w", err)
	}
	copy(r.secret[:], next)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("card: record key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("card: record key: %w", err)
	}
	return &recordKey{AEAD: aead, raw: [keyLen]byte(key)}, nil
}

// epoch is one key of the sealing direction and what was sealed with it.
type epoch struct {
	aead    *recordKey
	number  uint64
	started atomic.Pointer[time.Time] // when the first record was sealed; nil before it
	records atomic.Int64
	bytes   atomic.Int64
}

// sealRing is the sealing direction: one current key, replaced when it has
// served its volume or time.
type sealRing struct {
	limits  limits
	current atomic.Pointer[epoch]

	mu    sync.Mutex // serialises renewal
	chain ratchet
}

func (r *sealRing) start(secret []byte) error {
	r.limits = limits{records: maxRecords, bytes: maxBytes, age: maxAge}
	copy(r.chain.secret[:], secret)
	aead, err := r.chain.step()
	if err != nil {
		return err
	}
	r.current.Store(&epoch{aead: aead})
	return nil
}

// take returns the key for one more record of n bytes. A renewal derives two
// hashes and does not wait for the peer.
func (r *sealRing) take(n int, now time.Time) (*epoch, error) {
	e := r.current.Load()
	if e.admit(n, now, r.limits) {
		return e, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.current.Load(); e.admit(n, now, r.limits) {
		return e, nil // another worker has renewed it meanwhile
	}
	aead, err := r.chain.step()
	if err != nil {
		return nil, err
	}
	next := &epoch{aead: aead, number: r.current.Load().number + 1}
	next.admit(n, now, r.limits)
	r.current.Store(next)
	return next, nil
}

// admit counts a record of n bytes and reports whether the epoch may seal it.
func (e *epoch) admit(n int, now time.Time, l limits) bool {
	started := e.started.Load()
	if started == nil {
		first := now // else each call would allocate
		e.started.CompareAndSwap(nil, &first)
		started = e.started.Load()
	}
	return now.Sub(*started) < l.age && e.records.Add(1) <= l.records && e.bytes.Add(int64(n)) <= l.bytes
}

// Keys is the opening direction at one moment: the keys of the epochs newest-reach to
// newest+reach, but for those that do not exist. Who keeps one can open what had come by
// then, however far its direction has gone on since, and what came after that: each leads
// to those that took its place, which live for as long as somebody keeps one before them.
type Keys struct {
	newest uint64
	aead   [2*reach + 1]*recordKey
	next   atomic.Pointer[Keys] // nil: it is the newest
}

// Follow returns the first of k and of those that came after it which open a sealed record;
// nil: none does. Records of one flow that are opened late, one after the other, are
// opened by those that the one before has led to.
func (k *Keys) Follow(record []byte) *Keys {
	for ; k != nil; k = k.next.Load() {
		if k.Open(record) {
			return k
		}
	}
	return nil
}

// Open says whether k has the key of a sealed record, as far as its header tells.
func (k *Keys) Open(record []byte) bool {
	h, err := ParseHeader(record)
	if err != nil {
		return false
	}
	_, _, err = k.find(h.Epoch)
	return err == nil
}

// find returns the key of the epoch whose low 8 bits are low, and its number.
// The error matches ErrEpoch.
func (k *Keys) find(low uint8) (*recordKey, uint64, error) {
	if d := int(int8(low - uint8(k.newest))); -reach <= d && d <= reach && k.aead[reach+d] != nil {
		return k.aead[reach+d], k.newest + uint64(d), nil // wraps as wanted for d < 0
	}
	return nil, 0, fmt.Errorf("card: epoch %d (low 8 bits), newest is %d: %w", low, k.newest, ErrEpoch)
}

// openRing is the opening direction. Readers use the view without a lock.
type openRing struct {
	view atomic.Pointer[Keys]

	mu      sync.Mutex // serialises changes of view
	chain   ratchet
	derived uint64 // epochs derived so far: the chain's next
}

func (r *openRing) start(secret []byte) error {
	copy(r.chain.secret[:], secret)
	return r.show(&Keys{})
}

// show makes v the view, with all keys ahead. The caller holds mu, or is the only one.
func (r *openRing) show(v *Keys) error {
	for ; r.derived <= v.newest+reach; r.derived++ {
		aead, err := r.chain.step()
		if err != nil {
			return err
		}
		v.aead[r.derived+reach-v.newest] = aead
	}
	if old := r.view.Swap(v); old != nil {
		old.next.Store(v)
	}
	return nil
}

// find is that of the view that was there when the record came, or else, and where that is
// not known, of the view that is there now.
func (r *openRing) find(since *Keys, low uint8) (*recordKey, uint64, error) {
	if since != nil {
		if key, number, err := since.find(low); err == nil {
			return key, number, nil
		}
	}
	return r.view.Load().find(low)
}

// opened notes that a record of this epoch was authentic. Only that moves the
// view on, and gives up the keys of more than reach epochs behind.
func (r *openRing) opened(number uint64) error {
	if number <= r.view.Load().newest {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view.Load()
	if number <= v.newest {
		return nil
	}
	moved := &Keys{newest: number}
	copy(moved.aead[:], v.aead[number-v.newest:])
	return r.show(moved)
}
