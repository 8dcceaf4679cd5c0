package names

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

const (
	resolvConf  = "/etc/resolv.conf"
	mostServers = 3 // that count; see resolv.conf(5)
	// resolved are the servers of all networks, where systemd-resolved stands before them.
	resolved     = "/run/systemd/resolve/resolv.conf"
	mostResolved = 8
)

// stubs are where systemd-resolved listens. It asks all networks' servers at once, and what the
// first one says counts, though that be that another network's knows more.
var stubs = []string{"127.0.0.53:53", "127.0.0.54:53"}

// servers are the name servers of this host's resolv.conf, as address:port, and those behind
// systemd-resolved.
func (r Resolver) servers() []string {
	file, behind := r.file, r.behind
	if file == "" {
		file, behind = resolvConf, resolved
	}
	out := listed(file, mostServers)
	if !slices.ContainsFunc(out, func(s string) bool { return slices.Contains(stubs, s) }) {
		return out
	}
	for _, s := range listed(behind, mostResolved) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// listed are the first name servers of a resolv.conf.
func listed(file string, most int) (out []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // the system's resolver says what is wrong
	}
	for line := range strings.Lines(string(text)) {
		word := strings.Fields(line)
		if len(word) < 2 || word[0] != "nameserver" || len(out) == most {
			continue
		}
		if _, err := netip.ParseAddr(word[1]); err == nil {
			out = append(out, net.JoinHostPort(word[1], "53"))
		}
	}
	return out
}
