package names

import (
	"net"
	"net/netip"
	"os"
	"strings"
)

const (
	resolvConf  = "/etc/resolv.conf"
	mostServers = 3 // that count; see resolv.conf(5)
)

// servers are the name servers of a resolv.conf, "" for this host's, as address:port.
func servers(file string) (out []string) {
	if file == "" {
		file = resolvConf
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // the system's resolver says what is wrong
	}
	for line := range strings.Lines(string(text)) {
		word := strings.Fields(line)
		if len(word) < 2 || word[0] != "nameserver" || len(out) == mostServers {
			continue
		}
		if _, err := netip.ParseAddr(word[1]); err == nil {
			out = append(out, net.JoinHostPort(word[1], "53"))
		}
	}
	return out
}
