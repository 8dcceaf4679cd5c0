package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"hawser/pkg/unit"
)

// Endpoint is a host and a port. The zero value is no endpoint.
type Endpoint struct {
	Host string     // as written: an IP address without brackets, a DNS name, or "" (listen: every address)
	Addr netip.Addr // the IP address; invalid when Host is a name or ""
	Port uint16     // from 1
}

// String returns "host:port", with an IPv6 address in brackets, as the dial
// and listen functions of package net take it.
func (e Endpoint) String() string {
	host := e.Host
	if e.Addr.IsValid() {
		host = e.Addr.String()
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(e.Port))
}

// AddrPort returns the address and port; ok is false when Host is a DNS name
// that has yet to be resolved, or "".
func (e Endpoint) AddrPort() (ap netip.AddrPort, ok bool) {
	return netip.AddrPortFrom(e.Addr, e.Port), e.Addr.IsValid()
}

// meets reports whether one host cannot listen at both.
func (e Endpoint) meets(o Endpoint) bool {
	return e.Port == o.Port && (e.covers(o) || o.covers(e))
}

// same reports whether e and o are one address to listen at, however each is written.
func (e Endpoint) same(o Endpoint) bool {
	return e.Port == o.Port && e.covers(o) && o.covers(e)
}

// covers reports whether who listens at e listens at o's address, too.
func (e Endpoint) covers(o Endpoint) bool {
	switch {
	case e.Host == "", e.Addr == netip.IPv6Unspecified():
		return true
	case e.Addr == netip.IPv4Unspecified():
		return o.Addr.Is4()
	}
	return e.Addr == o.Addr
}

// PortRange is a range of TCP ports, both ends included.
type PortRange struct {
	First, Last uint16
}

// String returns "443" or "8000-8100".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// parseRemote reads where a link, a client or a gateway connects to.
func parseRemote(s string) (Endpoint, error) {
	e, err := parseEndpoint(s, "host:port")
	switch {
	case err != nil:
		return Endpoint{}, err
	case e.Host == "":
		return Endpoint{}, fmt.Errorf("%s names no host: write host:port, such as 203.0.113.10:%d", shown(s), e.Port)
	case e.Addr.IsValid() && (e.Addr.IsUnspecified() || e.Addr.IsMulticast()):
		return Endpoint{}, fmt.Errorf("%s is no address to connect to: give the other end's", shown(s))
	}
	return e, nil
}

// parseListen reads where a cloud, a gateway or its client listens.
func parseListen(s string) (Endpoint, error) {
	port, err := parsePort(s[strings.LastIndexByte(s, ':')+1:])
	if err != nil {
		port = DefaultPort
	}
	form := fmt.Sprintf("\":%d\" for every address, or addr:port", port)
	e, err := parseEndpoint(s, form)
	switch {
	case err != nil:
		return Endpoint{}, err
	case e.Host != "" && !e.Addr.IsValid():
		return Endpoint{}, fmt.Errorf("%s is not an address of this host: write %s", shown(s), form)
	case e.Addr.IsMulticast():
		return Endpoint{}, fmt.Errorf("%s is a multicast address: write %s", shown(s), form)
	case e.Addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}): // the kernel lets it
		return Endpoint{}, fmt.Errorf("%s is a broadcast address: write %s", shown(s), form)
	}
	return e, nil
}

// parseMetrics reads where metrics are served.
func parseMetrics(s string) (Endpoint, error) {
	e, err := parseEndpoint(s, "127.0.0.1:port, or :port for every address")
	if err == nil && (e.Host != "" && !e.Addr.IsValid() || e.Addr.IsMulticast()) {
		err = fmt.Errorf("%s is not an address of this host: write 127.0.0.1:port, or :port for every address", shown(s))
	}
	return e, err
}

// parseEndpoint reads host and port. form is what to write, for whoever has left one out.
func parseEndpoint(s, form string) (Endpoint, error) {
	colon := strings.LastIndexByte(s, ':')
	switch {
	case colon < 0 && s != "" && strings.Trim(s, digits) == "":
		return Endpoint{}, fmt.Errorf("%s is a port alone: write %s", shown(s), form)
	case colon < 0:
		return Endpoint{}, fmt.Errorf("%s has no port: write %s", shown(s), form)
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		return Endpoint{}, fmt.Errorf("%s has no port: write [address]:port", shown(s))
	}
	host := s[:colon]
	port, err := parsePort(s[colon+1:])
	if err != nil {
		return Endpoint{}, fmt.Errorf("%s: %w", shown(s), err)
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return Endpoint{}, fmt.Errorf("%s: a bracket is missing: write [address]:port", shown(s))
		}
		host = inner
	} else if strings.Contains(host, ":") && strings.Trim(host, hexDigits+":.") == "" {
		return Endpoint{}, fmt.Errorf("%s: an IPv6 address stands in brackets: write [address]:port", shown(s))
	}
	if host == "" && !bracketed {
		return Endpoint{Port: port}, nil
	}
	addr, err := netip.ParseAddr(host)
	if err == nil {
		return Endpoint{Host: host, Addr: addr.Unmap(), Port: port}, nil
	}
	if bracketed || !isDNSName(host) {
		return Endpoint{}, fmt.Errorf("%s: %s is neither an IP address nor a host name", shown(s), shown(host))
	}
	return Endpoint{Host: host, Port: port}, nil
}

// isDNSName reports whether s is a host name (RFC 1123 section 2.1, with
// underscores). A last label of digits only is a mistyped IPv4 address.
func isDNSName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, letters+digits+"-_") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], digits) != ""
}

const (
	digits    = "0123456789"
	hexDigits = digits + "abcdefABCDEF"
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strings.Trim(s, digits) != "" {
		return 0, fmt.Errorf("%s is not a port from 1 to 65535", shown(s))
	}
	return uint16(n), nil
}

func parsePorts(s string) (PortRange, error) {
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	first, err := parsePort(strings.TrimSpace(low))
	if err != nil {
		return PortRange{}, err
	}
	last, err := parsePort(strings.TrimSpace(high))
	if err != nil {
		return PortRange{}, err
	}
	if first > last {
		return PortRange{}, fmt.Errorf("%s runs backwards: write %d-%d", shown(s), last, first)
	}
	return PortRange{First: first, Last: last}, nil
}

// parsePrefix reads "10.0.0.0/8", or one address as a prefix of full length.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is not a network such as 10.0.0.0/8 or 2001:db8::/32", shown(s))
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length: write %s", shown(s), p.Masked())
	}
	return p, nil
}

func parseGateway(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%s is not an IP address such as 192.0.2.1", shown(s))
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%s: leave out %%%s: the link's interface is known", shown(s), addr.Zone())
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s is no gateway: give the address of the next router on this link", shown(s))
	}
	return addr, nil
}

// parseKey reads a public key as the verb pubkey prints it: 32 bytes in base64.
func parseKey(s string) (key [32]byte, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(key) {
		return key, errors.New("not a public key: paste the 44 characters that the peer's `pubkey` prints")
	}
	copy(key[:], raw)
	if key == ([32]byte{}) {
		return key, errors.New("the key is all zero: paste the 44 characters that the peer's `pubkey` prints")
	}
	return key, nil
}

// parseInterface accepts what the kernel does (net/core/dev.c, dev_valid_name),
// but for a trailing "+", which iptables reads as a wildcard.
func parseInterface(s string) (string, error) {
	const most = 15 // IFNAMSIZ without the final zero
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	if s == "" || len(s) > most || s == "." || s == ".." || strings.ContainsFunc(s, bad) || strings.HasSuffix(s, "+") {
		return "", fmt.Errorf("%s is not the name of a network interface (1 to %d characters, see `ip link`)", shown(s), most)
	}
	return s, nil
}

// ParseName reads a name for people: it stands in logs, status and file names. Its
// errors say what a name is, but not whose this one is.
func ParseName(s string) (string, error) {
	const most = 32
	if s == "" || len(s) > most || strings.Trim(s, letters+digits+"._-") != "" || strings.Trim(s[:1], letters+digits) != "" {
		return "", fmt.Errorf("%s is not a name: use 1 to %d letters, digits, '.', '_' or '-', a letter or digit first", shown(s), most)
	}
	return s, nil
}

func parsePath(s string) (string, error) {
	if !path.IsAbs(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%s is not an absolute path", shown(s))
	}
	return path.Clean(s), nil
}

// parseSocket reads the path of a unix socket, which the kernel limits
// (unix(7): sun_path).
func parseSocket(s string) (string, error) {
	const most = 107
	p, err := parsePath(s)
	if err != nil {
		return "", err
	}
	if len(p) > most {
		return "", fmt.Errorf("the path has %d characters: the kernel allows %d for a socket", len(p), most)
	}
	return p, nil
}

func parseWorkers(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > MaxWorkers {
		return 0, fmt.Errorf("%s is not a number from 0 (one per CPU) to %d", shown(s), MaxWorkers)
	}
	return n, nil
}

func parseQuota(s string) (unit.Bytes, error) {
	b, err := unit.ParseBytes(s)
	if err == nil && b < MinQuota {
		err = fmt.Errorf("%s is too little: give at least %d MB per month", shown(s), MinQuota/1e6)
	}
	return b, err
}

func parseMemory(s string) (unit.Bytes, error) {
	b, err := unit.ParseBytes(s)
	if err != nil {
		return 0, err
	}
	if b < MinMemory {
		return 0, fmt.Errorf("%s is too little: give at least %s", shown(s), MinMemory)
	}
	return b, nil
}
