package card

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's crypto API is described in the kernel's document
// "User Space Interface" (crypto/userspace-if) and used here as follows. A key
// has a transform socket: bound to aead/gcm(aes), with key and tag length set.
// Accept makes an operation socket of it, which does one operation at a time:
// sendmsg brings the associated data and the input, with operation, IV and the
// length of the associated data as control messages; recvmsg does the work and
// returns the associated data and the output. A record's header is its
// associated data, so what encryption returns is the record.

// keysHeld is for how many keys a thread keeps its sockets open.
const keysHeld = 64

// Operations and the length of a 32-bit control message (linux/if_alg.h).
const (
	algDecrypt = 0
	algEncrypt = 1
	algWord    = 4
)

// NewKernel returns a pool whose threads let the kernel encrypt and decrypt;
// an accelerator that the kernel drives is used where there is one. A thread
// waits in the kernel for one operation at a time. The error says in one line
// why this kernel cannot.
func NewKernel(o PoolOptions) (*Pool, error) {
	if err := ProbeKernel(); err != nil {
		return nil, err
	}
	return newPool(o, func() (crypter, error) { return newKernelCrypter(), nil })
}

// ProbeKernel finds out whether the kernel does AES-256-GCM over AF_ALG, and
// does it as this process does.
func ProbeKernel() error {
	ring, err := NewKeyring(make([]byte, SecretLen), Edge)
	if err != nil {
		return err
	}
	key, err := ring.seal.take(1, time.Unix(1, 0))
	if err != nil {
		return err
	}
	const missing = "card: this kernel does no AES-GCM over AF_ALG (CONFIG_CRYPTO_USER_API_AEAD, module algif_aead): %w"
	k := newKernelCrypter()
	defer k.close()
	if _, err := k.find(key.aead); err != nil {
		return fmt.Errorf(missing, err)
	}
	for _, n := range []int{1, 16, 1000, MaxRecord - Overhead} {
		if err := k.prove(key.aead, n); err != nil {
			return fmt.Errorf(missing, err)
		}
	}
	return nil
}

// prove compares the kernel's work on n bytes with the software's.
func (k *kernelCrypter) prove(key *recordKey, n int) error {
	nonce := [nonceLen]byte{1, 2, 3, nonceLen - 1: 4}
	plain := bytes.Repeat([]byte{0xa5}, n)
	head := make([]byte, n+Overhead)
	Header{Len: n + Overhead, Epoch: 7}.put(head)
	want, got, back := bytes.Clone(head), bytes.Clone(head), make([]byte, n)
	_ = software{}.seal(key, &nonce, want, plain)
	if err := k.seal(key, &nonce, got, plain); err != nil {
		return err
	}
	if err := k.open(key, &nonce, back, want); err != nil {
		return err
	}
	if !bytes.Equal(got, want) || !bytes.Equal(back, plain) {
		return errors.New("its results are wrong")
	}
	want[len(want)-1] ^= 1
	if err := k.open(key, &nonce, back, want); !errors.Is(err, ErrForged) {
		return fmt.Errorf("it accepts a wrong tag (%v)", err)
	}
	return nil
}

// kernelCrypter is the crypter of one thread.
type kernelCrypter struct {
	keys  []*algKey // least recently opened first
	sends algMessage
	gets  algMessage
	aad   [HeaderLen]byte // a record's header, to the kernel or back from it
}

// algKey holds the sockets of one key.
type algKey struct {
	key       *recordKey
	transform int
	operation int // -1: to be made
}

func newKernelCrypter() *kernelCrypter {
	k := &kernelCrypter{}
	k.sends.control = make([]byte, algControlLen)
	return k
}

func (k *kernelCrypter) seal(key *recordKey, nonce *[nonceLen]byte, dst, plain []byte) error {
	k.aad = [HeaderLen]byte(dst)
	k.sends.set(k.aad[:], plain)
	k.gets.set(dst, nil)
	if err := k.operate(key, algEncrypt, nonce, len(dst)); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if k.aad != [HeaderLen]byte(dst) {
		return fmt.Errorf("%w: the kernel has changed the header", ErrLost)
	}
	return nil
}

func (k *kernelCrypter) open(key *recordKey, nonce *[nonceLen]byte, dst, record []byte) error {
	k.sends.set(record, nil)
	k.gets.set(k.aad[:], dst)
	switch err := k.operate(key, algDecrypt, nonce, HeaderLen+len(dst)); {
	case errors.Is(err, unix.EBADMSG):
		return ErrForged
	case err != nil:
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// operate does what sends and gets hold. After any error the operation socket
// is closed: it may still hold input.
func (k *kernelCrypter) operate(key *recordKey, op uint32, nonce *[nonceLen]byte, want int) error {
	a, err := k.find(key)
	if err != nil {
		return err
	}
	putControl(k.sends.control, op, nonce)
	sent, err := k.sends.call(unix.SYS_SENDMSG, a.operation)
	if err == nil && sent != k.sends.length() {
		err = fmt.Errorf("kernel took %d of %d bytes", sent, k.sends.length())
	}
	got := 0
	if err == nil {
		got, err = k.gets.call(unix.SYS_RECVMSG, a.operation)
	}
	if err == nil && got != want {
		err = fmt.Errorf("kernel returned %d of %d bytes", got, want)
	}
	if err != nil {
		a.drop()
	}
	return err
}

// find returns the sockets of a key.
func (k *kernelCrypter) find(key *recordKey) (*algKey, error) {
	for _, a := range k.keys {
		if a.key == key {
			return a, a.accept()
		}
	}
	fd, err := newTransform(key.raw[:])
	if err != nil {
		return nil, err
	}
	if len(k.keys) == keysHeld {
		k.keys[0].close()
		k.keys = append(k.keys[:0], k.keys[1:]...)
	}
	a := &algKey{key: key, transform: fd, operation: -1}
	k.keys = append(k.keys, a)
	return a, a.accept()
}

func (k *kernelCrypter) close() {
	for _, a := range k.keys {
		a.close()
	}
	k.keys = nil
}

// newTransform opens a socket for one key.
func newTransform(key []byte) (int, error) {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrALG{Type: "aead", Name: "gcm(aes)"}); err != nil {
		err = fmt.Errorf("bind: %w", err)
	} else if err = unix.SetsockoptString(fd, unix.SOL_ALG, unix.ALG_SET_KEY, string(key)); err != nil {
		err = fmt.Errorf("set key: %w", err)
	} else if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_ALG, unix.ALG_SET_AEAD_AUTHSIZE, 0, TagLen, 0); errno != 0 {
		err = fmt.Errorf("set tag length: %w", errno)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// accept makes the operation socket if there is none.
func (a *algKey) accept() error {
	if a.operation >= 0 {
		return nil
	}
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(a.transform), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return fmt.Errorf("accept: %w", errno)
	}
	a.operation = int(fd)
	return nil
}

// drop closes the operation socket.
func (a *algKey) drop() {
	if a.operation >= 0 {
		_ = unix.Close(a.operation)
		a.operation = -1
	}
}

func (a *algKey) close() {
	a.drop()
	_ = unix.Close(a.transform)
}

// algControlLen is the length of the control messages of one operation.
var algControlLen = unix.CmsgSpace(algWord) + unix.CmsgSpace(algWord+nonceLen) + unix.CmsgSpace(algWord)

// putControl writes the control messages of one operation to p, algControlLen
// bytes: the operation, the IV with its length before it, and the length of the
// associated data.
func putControl(p []byte, op uint32, nonce *[nonceLen]byte) {
	data, p := putHeader(p, unix.ALG_SET_OP, algWord)
	binary.NativeEndian.PutUint32(data, op)
	data, p = putHeader(p, unix.ALG_SET_IV, algWord+nonceLen)
	binary.NativeEndian.PutUint32(data, nonceLen)
	copy(data[algWord:], nonce[:])
	data, _ = putHeader(p, unix.ALG_SET_AEAD_ASSOCLEN, algWord)
	binary.NativeEndian.PutUint32(data, HeaderLen)
}

// putHeader writes the header of a control message with n bytes of data.
func putHeader(p []byte, kind int32, n int) (data, rest []byte) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(p)))
	h.Level, h.Type = unix.SOL_ALG, kind
	h.SetLen(unix.CmsgLen(n))
	return p[unix.CmsgLen(0):unix.CmsgLen(n)], p[unix.CmsgSpace(n):]
}

// algMessage is a msghdr of up to two pieces that can be used again.
type algMessage struct {
	header  unix.Msghdr
	pieces  [2]unix.Iovec
	control []byte
}

// set makes a message of first and then, if it has bytes, second.
func (m *algMessage) set(first, second []byte) {
	n := 0
	for _, p := range [...][]byte{first, second} {
		m.pieces[n] = unix.Iovec{}
		if len(p) > 0 {
			m.pieces[n].Base = unsafe.SliceData(p)
			m.pieces[n].SetLen(len(p))
			n++
		}
		if n == len(m.pieces) {
			break
		}
	}
	m.header = unix.Msghdr{Iov: &m.pieces[0]}
	m.header.SetIovlen(n)
	if len(m.control) > 0 {
		m.header.Control = unsafe.SliceData(m.control)
		m.header.SetControllen(len(m.control))
	}
}

// length returns the bytes of the pieces.
func (m *algMessage) length() int { return int(m.pieces[0].Len + m.pieces[1].Len) }

// call sends or receives the message.
func (m *algMessage) call(trap uintptr, fd int) (int, error) {
	var n uintptr
	errno := unix.EINTR
	for errno == unix.EINTR {
		n, _, errno = unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&m.header)), 0)
	}
	runtime.KeepAlive(m)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
