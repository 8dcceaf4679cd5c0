package card

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

// needsKernel skips where the kernel has no AEAD over AF_ALG.
func needsKernel(t testing.TB) {
	t.Helper()
	if err := ProbeKernel(); err != nil {
		t.Skip(err)
	}
}

// A kernel without it is found out with one clear line, and no descriptor stays
// open.
func TestProbeKernel(t *testing.T) {
	before := descriptors(t)
	err := ProbeKernel()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	if err == nil {
		t.Log("this kernel has it")
		return
	}
	t.Log(err)
	if strings.ContainsAny(err.Error(), "\n") || !strings.Contains(err.Error(), "CONFIG_CRYPTO_USER_API_AEAD") {
		t.Errorf("not one clear line: %q", err)
	}
	if p, err := NewKernel(PoolOptions{Threads: 1, Queue: 1}); p != nil || err == nil {
		t.Error("a card was made of what is not there")
	}
}

// The bytes as linux/if_alg.h and socket(7) lay them out on a 64-bit
// little-endian machine: a header of 16 bytes, data, padding to 8.
func TestControlBytes(t *testing.T) {
	if *(*byte)(unsafe.Pointer(&[]uint16{1}[0])) != 1 || unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("written for 64-bit little-endian machines")
	}
	p := make([]byte, algControlLen)
	nonce := [nonceLen]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	putControl(p, algEncrypt, &nonce)
	want := "1400000000000000" + "17010000" + "03000000" + "01000000" + "00000000" +
		"2000000000000000" + "17010000" + "02000000" + "0c000000" + "0102030405060708090a0b0c" +
		"1400000000000000" + "17010000" + "04000000" + "04000000" + "00000000"
	if got := hex.EncodeToString(p); got != want {
		t.Errorf("\n%s\n%s wanted", got, want)
	}
	messages, err := unix.ParseSocketControlMessage(p)
	if err != nil || len(messages) != 3 || len(messages[1].Data) != 16 {
		t.Errorf("%+v, %v", messages, err)
	}
}

// Messages reach a socket as they were set, in one or two pieces.
func TestAlgMessage(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var sends, gets algMessage
	for _, k := range [][2]string{{"head", "and body"}, {"one piece", ""}, {"head", "x"}} {
		sends.set([]byte(k[0]), []byte(k[1]))
		if n, err := sends.call(unix.SYS_SENDMSG, fds[0]); n != sends.length() || err != nil {
			t.Fatal(n, err)
		}
		head, rest := make([]byte, 4), make([]byte, 100)
		gets.set(head, rest)
		n, err := gets.call(unix.SYS_RECVMSG, fds[1])
		if got := string(append(head, rest[:max(0, n-4)]...)); err != nil || got != k[0]+k[1] {
			t.Errorf("%q, %v", got, err)
		}
	}
	unix.Shutdown(fds[0], unix.SHUT_WR)
	sends.set([]byte("x"), nil)
	if _, err := sends.call(unix.SYS_SENDMSG, fds[0]); !errors.Is(err, unix.EPIPE) {
		t.Errorf("error %v", err)
	}
}

// Without the kernel's help each operation fails as lost, so that a Guard does
// the job, and leaves no socket.
func TestKernelFails(t *testing.T) {
	edge, _ := rings(t)
	key, err := edge.seal.take(1, start)
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	k := newKernelCrypter()
	// A pair instead of the operation socket: it takes the input, and returns
	// other bytes than wanted.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k.sends.control = nil
	k.keys = []*algKey{{key: key.aead, transform: fds[1], operation: fds[0]}}
	k.sends.control = make([]byte, algControlLen)
	if _, err := unix.Write(fds[1], []byte("short")); err != nil {
		t.Fatal(err)
	}
	var nonce [nonceLen]byte
	dst := make([]byte, 100+Overhead)
	if err := k.seal(key.aead, &nonce, dst, make([]byte, 100)); !errors.Is(err, ErrLost) {
		t.Errorf("error %v", err)
	}
	if k.keys[0].operation != -1 {
		t.Error("the operation socket is used on, although it may hold input")
	}
	k.close()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

func TestKernelRoundTrip(t *testing.T) {
	needsKernel(t)
	leaks(t)
	before := descriptors(t)
	edge, cloud := rings(t)
	k := newKernelCrypter()
	hard, soft := engineWith(t, k), engineWith(t, software{})
	engines := [2]*engine{soft, hard}
	counter := uint32(0)
	for _, plain := range [][]byte{text(1), noise(2), text(15), noise(16), text(1000), noise(4096), text(buffer.Plain), noise(buffer.Plain)} {
		for _, codec := range []compress.Codec{compress.None, compress.S2, compress.Zstd} {
			for way := range 4 { // every seal with every open
				s := sealJob(edge, counter, plain, codec)
				engines[way&1].do(s)
				if s.Err != nil {
					t.Fatal(s.Err)
				}
				bad := openJob(cloud, counter, s.Out.P)
				bad.In.P[len(bad.In.P)-1] ^= 1
				engines[way>>1].do(bad)
				if !errors.Is(bad.Err, ErrForged) {
					t.Errorf("wrong tag: %v", bad.Err)
				}
				o := &Job{Op: Open, Ring: cloud, Flow: 7, Counter: counter, In: s.Out}
				engines[way>>1].do(o)
				if o.Err != nil || !bytes.Equal(o.Out.P, plain) {
					t.Fatalf("%d bytes, %v, way %d: %v", len(plain), codec, way, o.Err)
				}
				o.Out.Release()
				counter++
			}
		}
	}
	k.close()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

// Many sessions share a thread: keys come and go.
func TestKernelKeys(t *testing.T) {
	needsKernel(t)
	before := descriptors(t)
	k := newKernelCrypter()
	hard := engineWith(t, k)
	var all []*Keyring
	for i := range keysHeld * 3 {
		ring, err := NewKeyring(bytes.Repeat([]byte{byte(i)}, SecretLen), Edge)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ring)
	}
	for round := range 3 {
		for i, ring := range all {
			j := sealJob(ring, uint32(round), noise(100), compress.None)
			hard.do(j)
			if j.Err != nil {
				t.Fatal(i, j.Err)
			}
			peer, err := NewKeyring(bytes.Repeat([]byte{byte(i)}, SecretLen), Cloud)
			if err != nil {
				t.Fatal(err)
			}
			o := run(t, inline(t), &Job{Op: Open, Ring: peer, Flow: 7, Counter: uint32(round), In: j.Out})
			if o.Err != nil {
				t.Fatal(i, o.Err)
			}
			o.Out.Release()
		}
	}
	if now := descriptors(t); now > before+2*keysHeld {
		t.Errorf("%d descriptors more", now-before)
	}
	k.close()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

func engineWith(t testing.TB, c crypter) *engine {
	t.Helper()
	e, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	e.crypt = c
	return e
}
