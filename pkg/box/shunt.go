package box

import "hawser/pkg/shunt"

// newShunt has connections around the tunnel carried in the kernel, where it can.
func (w *Workers) newShunt() {
	if w.opts.Direct == nil || w.opts.Host == nil {
		return
	}
	how, err := w.opts.Host.Steering()
	if err == nil {
		hub := w.opts.Host.Hub()
		o := shunt.Options{Hub: how.Hub, Hub4: hub.Hub4, Hub6: hub.Hub6, Workers: w.opts.Count}
		err = w.opts.Host.Home(func() (err error) {
			w.shunt, err = shunt.New(o)
			return err
		})
	}
	if err != nil {
		w.shunt = nil
		w.opts.Log.Warn("connections around the tunnel are not carried by the kernel but by the agent, at more cost", "reason", err)
	}
}

// closeShunt takes the program off the hub. The stacks have ended.
func (w *Workers) closeShunt() error {
	if w.shunt == nil {
		return nil
	}
	return w.shunt.Close()
}
