package api

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// orders are the routes of operators.
func orders() []route {
	post := func(path string, read func(http.ResponseWriter, *http.Request) (Order, error)) route {
		return orderRoute(http.MethodPost, path, read)
	}
	return []route{
		post("/v1/switchover", bodied(func(o *Order, b Switchover) error { o.Switchover = &b; return nil })),
		post("/v1/failover", bodied(readFailover)),
		post("/v1/promote", bodied(func(o *Order, b Target) error { o.Promote = b.Node; return named(b.Node) })),
		post("/v1/pause", bodied(func(o *Order, _ struct{}) error { o.Pause = new(true); return nil })),
		post("/v1/resume", bodied(func(o *Order, _ struct{}) error { o.Pause = new(false); return nil })),
		post("/v1/maintenance", bodied(func(o *Order, b Maintenance) error { o.Maintenance = &b; return named(b.Node) })),
		post("/v1/reinit", bodied(func(o *Order, b Target) error { o.Reinit = b.Node; return named(b.Node) })),
		orderRoute(http.MethodPatch, "/v1/settings", bodied(readSettings)),
		orderRoute(http.MethodDelete, "/v1/nodes/{name}", func(_ http.ResponseWriter, r *http.Request) (Order, error) {
			return Order{Remove: r.PathValue("name")}, nil
		}),
	}
}

// orderRoute returns a route that gives the order which read finds in a request.
func orderRoute(method, path string, read func(http.ResponseWriter, *http.Request) (Order, error)) route {
	return route{method: method, path: path, access: operators, serve: func(h *Handler, w http.ResponseWriter, r *http.Request) error {
		o, err := read(w, r)
		if err != nil {
			return err
		}
		return h.do(w, r, o)
	}}
}

// bodied returns what reads an order from a JSON body.
func bodied[T any](fill func(*Order, T) error) func(http.ResponseWriter, *http.Request) (Order, error) {
	return func(w http.ResponseWriter, r *http.Request) (o Order, err error) {
		var body T
		if err := decode(w, r, &body); err != nil {
			return o, err
		}
		return o, fill(&o, body)
	}
}

func readFailover(o *Order, b Failover) error {
	if b.AcceptLoss != "" && !b.Force {
		return &Error{Code: CodeBadRequest, Message: "accept_loss is for force only"}
	}
	o.Failover = &b
	return nil
}

func readSettings(o *Order, b SettingsPatch) error {
	if b == (SettingsPatch{}) {
		return &Error{Code: CodeBadRequest, Message: "no setting is to be changed", Hint: `such as {"lease": "2s"}`}
	}
	o.Settings = &b
	return nil
}

// named returns an error if an order that needs a node has none.
func named(node string) error {
	if node == "" {
		return &Error{Code: CodeBadRequest, Message: `field "node" is missing`}
	}
	return nil
}

// check finds what the companion knows to be wrong with an order, so that a typing
// error needs no leader.
func (h *Handler) check(o Order) error {
	s := h.cfg.Cluster.State()
	nodes := []string{o.Promote, o.Reinit, o.Remove}
	if o.Switchover != nil {
		nodes = append(nodes, o.Switchover.To)
	}
	if o.Failover != nil {
		nodes = append(nodes, o.Failover.To, o.Failover.AcceptLoss)
	}
	if o.Maintenance != nil {
		nodes = append(nodes, o.Maintenance.Node)
	}
	for _, node := range nodes {
		if _, ok := s.Member(node); node != "" && !ok {
			return &Error{Code: CodeNoSuchNode, Message: fmt.Sprintf("there is no node %q", node), Hint: "/v1/cluster lists the members"}
		}
	}
	if o.Settings != nil {
		_, err := o.Settings.Apply(settingsOf(s))
		return err
	}
	return nil
}

// do gives an order and answers with what came of it.
func (h *Handler) do(w http.ResponseWriter, r *http.Request, o Order) error {
	if err := h.check(o); err != nil {
		return err
	}
	o.By = whoOrders(r)
	ctx, cancel := context.WithTimeoutCause(r.Context(), h.cfg.OrderTimeout, lateError{h.cfg.OrderTimeout})
	defer cancel()
	begun := time.Now()
	err := h.cfg.Cluster.Do(ctx, o)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		err = context.Cause(ctx)
	}
	outcome := "done"
	if err != nil {
		outcome = string(toldAs(err).Code)
	}
	h.cfg.Metrics.orders.WithLabelValues(o.Name(), outcome).Inc()
	h.cfg.Log.InfoContext(r.Context(), "order", "order", o.Name(), "by", o.By, "outcome", outcome, "took", time.Since(begun))
	if err != nil {
		return err
	}
	s := h.cfg.Cluster.State()
	answer(w, r, http.StatusOK, Done{Order: o.Name(), Epoch: s.Epoch, Phase: phaseOf(s), Primary: s.Primary, Paused: s.Paused})
	return nil
}

// A lateError says that an order took too long.
type lateError struct{ limit time.Duration }

// Error implements error.
func (e lateError) Error() string { return fmt.Sprintf("not done within %v", e.limit) }

// Is makes it one kind of context.DeadlineExceeded.
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }
