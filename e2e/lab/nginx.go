package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Nginx is Debian's nginx, unmodified, in the origin's namespace.
type Nginx struct {
	*Proc
	// Root is the directory that it serves at /.
	Root string
	// Uploads is the directory that takes files PUT to /upload/NAME, and from which DELETE
	// removes them; empty if this nginx has no dav module.
	Uploads string
}

// Nginx starts nginx in the origin with a configuration of its own. It serves the files
// below root on the ports, for IPv4 and (in a lab with IPv6) IPv6, and stores uploads.
// It returns when nginx accepts connections; Close of the lab ends it.
func (l *Lab) Nginx(root string, ports ...int) (*Nginx, error) {
	home, err := os.MkdirTemp(l.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	n := &Nginx{Root: root}
	if hasDAV() {
		n.Uploads = filepath.Join(home, "upload")
		if err := os.Mkdir(n.Uploads, 0o755); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(home, "nginx.conf")
	if err := os.WriteFile(conf, []byte(l.nginxConf(n, home, ports)), 0o644); err != nil {
		return nil, err
	}
	// -e before anything is read: the built-in error log is in /var/log.
	n.Proc, err = l.Start(originNode, "nginx", "-e", filepath.Join(home, "error.log"), "-p", home, "-c", conf)
	if err != nil {
		return nil, err
	}
	for _, port := range ports {
		if err := l.accepts(n, port); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func hasDAV() bool {
	out, err := exec.Command("nginx", "-V").CombinedOutput()
	return err == nil && strings.Contains(string(out), "--with-http_dav_module")
}

func (l *Lab) nginxConf(n *Nginx, home string, ports []int) string {
	var listen, upload strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&listen, "    listen 0.0.0.0:%d backlog=4096;\n", p)
		if l.spec.IPv6 {
			fmt.Fprintf(&listen, "    listen [::]:%d ipv6only=on backlog=4096;\n", p)
		}
	}
	if n.Uploads != "" {
		fmt.Fprintf(&upload, `    location /upload/ {
      alias %s/;
      dav_methods PUT DELETE;
      client_max_body_size 0;
    }
`, n.Uploads)
	}
	return fmt.Sprintf(`daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log warn;
events { worker_connections 8192; }
http {
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
%[2]s    location / { root %[3]s; }
%[4]s  }
}
`, home, listen.String(), n.Root, upload.String())
}

// accepts waits until a TCP connection to the port succeeds in the origin.
func (l *Lab) accepts(n *Nginx, port int) error {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := l.Do(originNode, func() error {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		})
		switch {
		case err == nil:
			return nil
		case endsWithin(n.done, 20*time.Millisecond):
			return fmt.Errorf("nginx ended: %w: %s", errors.Join(n.err, err), tail(n.Output()))
		case time.Now().After(deadline):
			return fmt.Errorf("nginx does not accept on port %d: %w", port, err)
		}
	}
}
