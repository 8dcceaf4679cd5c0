package link

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/resume"
)

// recallEvery is how often a connection's path is told of what it carries.
const recallEvery = 200 * time.Millisecond

// recalling tells a connection's path what BBR has found, so that the next connection
// can begin with it. Anybody may ask for a sample.
type recalling struct {
	windows *resume.Windows // nil: nothing is told
	port    uint16          // the cloud's

	mu   sync.Mutex
	path *resume.Path // guarded by mu; nil until the link has been admitted and is looked at
	next time.Time    // guarded by mu
}

// look tells it if that is due.
func (r *recalling) look(p *tcpPipe, fd int, info *unix.TCPInfo) {
	if r.windows == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.next) {
		return
	}
	r.next = now.Add(recallEvery)
	bbr, ok := bbrInfo(fd)
	if !ok || bbr.Min_rtt == 0 {
		return
	}
	if r.path == nil {
		r.path = r.windows.Path(addrPort(p.conn.LocalAddr()).Addr(), addrPort(p.conn.RemoteAddr()).Addr(), r.port)
	}
	rate := float64(uint64(bbr.Bw_hi)<<32 | uint64(bbr.Bw_lo))
	r.path.Note(now, rate, time.Duration(bbr.Min_rtt)*time.Microsecond, int(info.Snd_mss))
}
