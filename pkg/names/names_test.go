package names

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// zone answers after a time.
type zone struct {
	takes time.Duration
	addrs []netip.Addr
	err   error
}

func (z zone) ask(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	select {
	case <-time.After(z.takes):
		return z.addrs, z.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestLook: a resolver that does not answer holds nothing up, one that answers nearly at the
// same time is heard, too, and what is not answered is asked again.
func TestLook(t *testing.T) {
	dead, broken := zone{takes: time.Hour}, zone{err: errors.New("no such host")}
	four, six := zone{addrs: addrs("192.0.2.1")}, zone{takes: second / 2, addrs: addrs("2001:db8::1", "::ffff:192.0.2.1")}
	late := zone{takes: 2 * second, addrs: addrs("2001:db8::1")}
	all := func(netip.Addr) bool { return true }
	for name, c := range map[string]struct {
		now, later []zone
		serves     func(netip.Addr) bool
		want       []netip.Addr
		most       time.Duration
	}{
		"one is dead":         {[]zone{dead, four}, nil, all, four.addrs, second},
		"one is broken":       {[]zone{broken, four}, nil, all, four.addrs, 0},
		"all are broken":      {[]zone{broken, broken}, []zone{four}, all, nil, 0},
		"two answer":          {[]zone{six, four}, nil, all, addrs("2001:db8::1", "192.0.2.1"), second},
		"the second is late":  {[]zone{late, four}, nil, all, four.addrs, second},
		"IPv4 is of no use":   {[]zone{late, four}, nil, netip.Addr.Is6, addrs("2001:db8::1", "192.0.2.1"), 2 * second},
		"a question was lost": {[]zone{dead, dead}, []zone{four, dead}, all, four.addrs, again[0] + second},
		"nobody answers":      {[]zone{dead}, []zone{dead}, all, nil, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			begin := time.Now()
			l := look{host: "x", enough: func(a []netip.Addr) bool { return slices.ContainsFunc(a, c.serves) }, wait: second}
			got, err := l.run(ctx, questions(c.now), questions(c.later), again)
			if !slices.Equal(got, c.want) || (err == nil) != (len(c.want) > 0) || time.Since(begin) > c.most {
				t.Errorf("%s: %v, %v after %v", name, got, err, time.Since(begin))
			}
		})
	}
}

// TestSameError: that a name server refuses is told in the same words each time.
func TestSameError(t *testing.T) {
	for _, port := range []string{"40001", "40002"} {
		refused := zone{err: &net.DNSError{Name: "x", Server: "192.0.2.53:53", Err: "read udp 192.0.2.5:" + port + "->192.0.2.53:53: read: connection refused"}}
		l := look{host: "x", enough: func(a []netip.Addr) bool { return len(a) > 0 }}
		_, err := l.run(t.Context(), questions([]zone{refused}), nil, nil)
		if want := "lookup x on 192.0.2.53:53: read udp 192.0.2.53:53: read: connection refused"; err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
		if dns := new(net.DNSError); !errors.As(err, &dns) {
			t.Errorf("%T", err)
		}
	}
}

func questions(zones []zone) (out []question) {
	for _, z := range zones {
		out = append(out, question{z.ask, "ip"})
	}
	return out
}

// server is a name server at a port of this host. It knows one IPv4 address of any name, and
// says nothing about IPv6 ones.
func server(t *testing.T, address netip.Addr) string {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || !address.IsValid() || m.Questions[0].Type != dnsmessage.TypeA {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: address.As4()},
			}}
			out, _ := m.Pack()
			_, _ = conn.WriteToUDPAddrPort(out, from)
		}
	}()
	return conn.LocalAddr().String()
}

// TestServers: the server that answers is enough, though it comes last, and does not answer
// what it is asked about IPv6. Lines of resolv.conf that name no server are none.
func TestServers(t *testing.T) {
	at := map[string]string{
		"192.0.2.53:53": server(t, netip.Addr{}), "[2001:db8::53]:53": server(t, netip.Addr{}), "192.0.2.54:53": server(t, netip.MustParseAddr("198.51.100.7")),
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	lines := "# nameserver 192.0.2.1\nsearch example.org\nnameserver dns.example.org\nnameserver\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n nameserver 192.0.2.54 \nnameserver 192.0.2.55\n"
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Resolver{file: file, system: zone{takes: time.Hour}.ask, Ways: []Dial{func(ctx context.Context, network, server string) (net.Conn, error) {
		if at[server] == "" {
			t.Errorf("asks %s", server)
		}
		return new(net.Dialer).DialContext(ctx, network, at[server])
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	got, err := r.Look(ctx, "cloud.example.org", func(netip.Addr) bool { return true })
	if err != nil || !slices.Equal(got, addrs("198.51.100.7")) {
		t.Errorf("%v, %v", got, err)
	}
	there := Resolver{file: file, Ways: r.Ways, system: func(context.Context, string, string) ([]netip.Addr, error) {
		t.Error("the system's resolver is asked for what each network knows by itself")
		return nil, nil
	}}
	if got, err := there.LookThere(ctx, "ipv4only.arpa.", func(netip.Addr) bool { return true }); err != nil || !slices.Equal(got, addrs("198.51.100.7")) {
		t.Errorf("there: %v, %v", got, err)
	}
	if one, err := (Resolver{file: "/none", system: zone{addrs: got}.ask}).Look(ctx, "x", netip.Addr.Is4); err != nil || !slices.Equal(one, got) {
		t.Errorf("without the file: %v, %v", one, err)
	}
}

// TestBehindResolved: where systemd-resolved stands before the networks' servers these are
// asked, too, each by the uplink: one of them may know what the first to answer does not.
func TestBehindResolved(t *testing.T) {
	dir := t.TempDir()
	write := func(name, lines string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	behind := write("behind", "nameserver 192.0.2.53\nnameserver fe80::1%3\nnameserver 192.0.2.54\nnameserver 2001:db8::53\nsearch .\n")
	all := []string{"127.0.0.53:53", "192.0.2.53:53", "[fe80::1%3]:53", "192.0.2.54:53", "[2001:db8::53]:53"}
	for lines, want := range map[string][]string{
		"nameserver 127.0.0.53\noptions edns0 trust-ad\n": all,
		"nameserver 192.0.2.54\n":                         {"192.0.2.54:53"},
		"nameserver 127.0.0.1\n":                          {"127.0.0.1:53"},
	} {
		if got := (Resolver{file: write("resolv.conf", lines), behind: behind}).servers(); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	}
	if got := (Resolver{file: write("resolv.conf", "nameserver 127.0.0.53\n"), behind: "/none"}).servers(); len(got) != 1 {
		t.Errorf("without the file: %q", got)
	}
}

// TestSystem: the system's resolver alone is asked, and others when it does not answer; of
// them the first one's answer counts.
func TestSystem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	dial := func(_ context.Context, _, server string) (net.Conn, error) {
		asked = append(asked, server)
		return nil, errors.New("out of reach")
	}
	synctest.Test(t, func(t *testing.T) {
		known, none := zone{addrs: addrs("192.0.2.1")}, zone{err: errors.New("no such host")}
		for _, z := range []zone{known, none, {takes: slow / 2, addrs: known.addrs}} {
			got, err := Resolver{Ways: []Dial{dial}, system: z.ask, file: file}.LookupNetIP(t.Context(), "ip", "cloud.example.org")
			if !slices.Equal(got, z.addrs) || !errors.Is(err, z.err) || len(asked) > 0 {
				t.Errorf("%v, %v, asked %v", got, err, asked)
			}
		}
		l := look{host: "x", enough: func(a []netip.Addr) bool { return len(a) > 0 }}
		begin := time.Now()
		late := zone{takes: second / 2, addrs: addrs("192.0.2.2")}
		got, err := l.run(t.Context(), questions([]zone{{takes: time.Hour}}), questions([]zone{none, late, known}), []time.Duration{slow})
		if !slices.Equal(got, known.addrs) || err != nil || time.Since(begin) != slow {
			t.Errorf("%v, %v after %v", got, err, time.Since(begin))
		}
	})
	slowly := Resolver{Ways: []Dial{dial}, system: zone{takes: slow + second/2, err: errors.New("late")}.ask, file: file}
	if _, err := slowly.LookupNetIP(t.Context(), "ip4", "cloud.example.org"); err == nil || !slices.Equal(slices.Compact(asked), []string{"192.0.2.53:53"}) {
		t.Errorf("%v, asked %v", err, asked)
	}
}

// piped is a name server at the other end of a pipe: it knows an address of each IP version,
// and tells either after a time; 0: never.
func piped(four, six time.Duration) Dial {
	known := map[dnsmessage.Type]struct {
		takes time.Duration
		body  dnsmessage.ResourceBody
	}{
		dnsmessage.TypeA:    {four, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}},
		dnsmessage.TypeAAAA: {six, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}},
	}
	answer := func(conn net.Conn) {
		defer conn.Close()
		var size [2]byte
		var m dnsmessage.Message
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, b); err != nil || m.Unpack(b) != nil {
			return
		}
		q := m.Questions[0]
		k := known[q.Type]
		if k.takes == 0 {
			_, _ = conn.Read(size[:]) // until it is given up
			return
		}
		time.Sleep(k.takes)
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET}, Body: k.body}}
		out, _ := m.AppendPack([]byte{0, 0})
		binary.BigEndian.PutUint16(out, uint16(len(out)-2))
		_, _ = conn.Write(out)
	}
	return func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go answer(there)
		return here, nil
	}
}

// TestSystemIsSlow: who asks servers by itself has a name's addresses of both IP versions, as
// the system's resolver has, whichever comes first: the host may reach one of them only.
func TestSystemIsSlow(t *testing.T) {
	const ms = time.Millisecond
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		four, six time.Duration
		want      []netip.Addr
		takes     time.Duration // beyond slow
	}{
		"IPv6 first":        {20 * ms, 10 * ms, addrs("192.0.2.1", "2001:db8::1"), 20 * ms},
		"IPv4 first":        {10 * ms, 20 * ms, addrs("192.0.2.1", "2001:db8::1"), 20 * ms},
		"no answer of IPv6": {10 * ms, 0, addrs("192.0.2.1"), 10*ms + second},
		"no answer of IPv4": {0, 10 * ms, addrs("2001:db8::1"), 10*ms + second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := Resolver{Ways: []Dial{piped(c.four, c.six)}, system: zone{takes: time.Hour}.ask, file: file}
			begin := time.Now()
			got, err := r.LookupNetIP(t.Context(), "ip", "cloud.example.org")
			if took := time.Since(begin); err != nil || !slices.Equal(got, c.want) || took != slow+c.takes {
				t.Errorf("%s: %v, %v after %v", name, got, err, took)
			}
			time.Sleep(time.Minute) // the net package's goroutines end a little later
		})
	}
}
