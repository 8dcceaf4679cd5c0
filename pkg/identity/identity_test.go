package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func testKey(t testing.TB, fill byte) Key {
	t.Helper()
	k, err := Generate(bytes.NewReader(bytes.Repeat([]byte{fill}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// now is far from any real clock: times must not matter.
var now = time.Date(1971, 1, 2, 3, 4, 5, 0, time.UTC)

// TestVector checks the pair against RFC 8032 section 7.1, test 1.
func TestVector(t *testing.T) {
	k, err := Parse([]byte("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="; k.String() != want {
		t.Errorf("public key %s, want %s", k, want)
	}
}

func TestFileRoundTrip(t *testing.T) {
	k := testKey(t, 7)
	file := k.Encode()
	if len(file) != 45 || file[44] != '\n' {
		t.Fatalf("file is %q, want 44 characters and a newline", file)
	}
	for _, data := range [][]byte{file, file[:44], append([]byte("  "), append(file, '\r', '\n')...)} {
		if got, err := Parse(data); err != nil || got != k {
			t.Errorf("Parse(%q) = %v, %v", data, got, err)
		}
	}
	text := EncodePublic(k.Public())
	if public, err := base64.StdEncoding.Strict().DecodeString(text); err != nil || [32]byte(public) != k.Public() || len(text) != 44 {
		t.Errorf("public key: %q is %x, %v", text, public, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(testKey(t, 7).Encode())
	for name, in := range map[string]string{
		"empty":       "",
		"too short":   "AAEC",
		"too long":    strings.TrimSpace(good) + "AAAA",
		"not base64":  strings.Repeat("*", 44),
		"two keys":    good + good,
		"loose bits":  strings.Repeat("A", 42) + "B=",
		"url dialect": strings.Repeat("_", 43) + "=",
	} {
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: Parse accepts %q", name, in)
		} else if strings.Contains(err.Error(), "\n") || (len(in) > 8 && strings.Contains(err.Error(), in[:8])) {
			t.Errorf("%s: error is not one line, or quotes the key: %q", name, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	a, err := Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Generate(rand.Reader); a == b || a.IsZero() {
		t.Error("two keys are equal, or zero")
	}
	if _, err := Generate(strings.NewReader("short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short randomness: got %v", err)
	}
}

func TestSecretStaysOut(t *testing.T) {
	k := testKey(t, 7)
	secret := strings.TrimSpace(string(k.Encode()))
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%+v", struct{ K Key }{k})} {
		if strings.Contains(s, secret) || strings.Contains(s, "7 7 7") || !strings.Contains(s, k.String()) {
			t.Errorf("a key prints as %q", s)
		}
	}
}

func TestCheckMode(t *testing.T) {
	for _, c := range []struct {
		mode fs.FileMode
		want string
	}{
		{0o600, ""},
		{0o400, ""},
		{0o640, "f has mode 0640, so others can read or change the private key: run chmod 600 f"},
		{0o604, "f has mode 0604, so others can read or change the private key: run chmod 600 f"},
		{0o620, "f has mode 0620, so others can read or change the private key: run chmod 600 f"},
		{fs.ModeDir | 0o700, "f is not a regular file: give the path of a private key file"},
		{fs.ModeNamedPipe | 0o600, "f is not a regular file: give the path of a private key file"},
	} {
		got := ""
		if err := CheckMode("f", c.mode); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q, want %q", c.mode, got, c.want)
		}
	}
}

func TestCertificate(t *testing.T) {
	k := testKey(t, 7)
	cert, err := k.Certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	public, err := PeerKey(cert.Certificate)
	if err != nil || public != k.Public() {
		t.Fatalf("PeerKey = %x, %v; want %x", public, err, k.Public())
	}
	again, err := k.Certificate(now)
	if err != nil || !bytes.Equal(again.Certificate[0], cert.Certificate[0]) {
		t.Errorf("the certificate differs from call to call (%v)", err)
	}
	if _, err := (Key{}).Certificate(now); err == nil {
		t.Error("the zero key has a certificate")
	}
	for _, year := range []int{1900, 1960, 2026, 2049, 2100, 9000} {
		odd, err := k.Certificate(time.Date(year, 2, 29, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Errorf("clock in %d: %v", year, err)
			continue
		}
		if got, err := PeerKey(odd.Certificate); err != nil || got != k.Public() {
			t.Errorf("clock in %d: PeerKey = %x, %v", year, got, err)
		}
	}
}

// TestTamper flips every bit of a certificate: none may yield the pinned key
// with a body that the key has not signed.
func TestTamper(t *testing.T) {
	k := testKey(t, 7)
	cert, err := k.Certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	der := cert.Certificate[0]
	for bit := range len(der) * 8 {
		bad := bytes.Clone(der)
		bad[bit/8] ^= 1 << (bit % 8)
		if public, err := PeerKey([][]byte{bad}); err == nil && public == k.Public() {
			t.Errorf("bit %d flipped: still accepted", bit)
		}
	}
}

func TestPeerKeyRefuses(t *testing.T) {
	k, other := testKey(t, 7), testKey(t, 8)
	good, err := k.Certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}
	sign := func(public, signer any) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPair := ed25519.NewKeyFromSeed(other.seed[:])
	mine := ed25519.PublicKey(k.public[:])
	for name, c := range map[string]struct {
		certs [][]byte
		want  string
	}{
		"none":             {nil, "the peer sent 0 certificates: expected one"},
		"two":              {[][]byte{good.Certificate[0], good.Certificate[0]}, "the peer sent 2 certificates: expected one"},
		"empty":            {[][]byte{{}}, "the peer's certificate: x509: malformed certificate"},
		"ECDSA":            {[][]byte{sign(&elliptical.PublicKey, elliptical)}, "the peer's certificate holds a key of type ECDSA: expected Ed25519"},
		"signed by ECDSA":  {[][]byte{sign(mine, elliptical)}, "the peer's certificate is signed with ECDSA-SHA256: expected Ed25519"},
		"signed by others": {[][]byte{sign(mine, otherPair)}, "the peer's certificate is not signed by its own key"},
	} {
		if _, err := PeerKey(c.certs); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// TestHandshake runs TLS 1.3 with both keys pinned, as links do.
func TestHandshake(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	var seen [2][32]byte
	configure := func(k Key, peer *[32]byte) *tls.Config {
		cert, err := k.Certificate(now)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{
			Certificates:       []tls.Certificate{cert},
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // the key is pinned instead
			ClientAuth:         tls.RequireAnyClientCert,
			VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) (err error) {
				*peer, err = PeerKey(raw)
				return err
			},
		}
	}
	left, right := net.Pipe()
	server := tls.Server(left, configure(a, &seen[0]))
	client := tls.Client(right, configure(b, &seen[1]))
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if seen[0] != b.Public() || seen[1] != a.Public() {
		t.Errorf("the ends saw %x and %x", seen[0], seen[1])
	}
	left.Close()
	right.Close()
}

func FuzzParse(f *testing.F) {
	f.Add(testKey(f, 7).Encode())
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := Parse(k.Encode()); err != nil || again != k {
			t.Fatalf("a parsed key does not survive: %v", err)
		}
		if bytes.TrimSpace(data) == nil || k.IsZero() {
			t.Fatalf("Parse(%q) made a zero key", data)
		}
	})
}

func FuzzPeerKey(f *testing.F) {
	cert, err := testKey(f, 7).Certificate(now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert.Certificate[0])
	f.Add([]byte{0x30, 0x82})
	f.Fuzz(func(t *testing.T, der []byte) {
		public, err := PeerKey([][]byte{der})
		if err != nil {
			if public != ([32]byte{}) {
				t.Fatal("an error comes with a key")
			}
			return
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil || parsed.CheckSignature(x509.PureEd25519, parsed.RawTBSCertificate, parsed.Signature) != nil {
			t.Fatal("accepted a certificate whose signature does not hold")
		}
	})
}
