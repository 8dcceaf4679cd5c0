package link

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamesByUplink: questions to other hosts leave by the uplink, with the mark of
// links; those to a resolver on this host do not.
func TestNamesByUplink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("binding to an interface and marks need root")
	}
	dial := NameServers("lo", 0x40000000)
	for server, bound := range map[string]bool{"192.0.2.53:53": true, "127.0.0.53:53": false, "[::1]:53": false} {
		conn, err := dial(t.Context(), "udp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, _ := conn.(*net.UDPConn).SyscallConn()
		_ = raw.Control(func(fd uintptr) {
			device, _ := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
			mark, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
			if (device == "lo") != bound || (mark == 0x40000000) != bound {
				t.Errorf("%s: by %q with mark %#x", server, device, mark)
			}
		})
	}
}
