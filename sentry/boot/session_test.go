package boot

import (
	"reflect"
	"testing"
)

// TestMethods: every exported method of a Session can be called over its connection, and nothing else.
func TestMethods(t *testing.T) {
	methods, typ := (&Session{}).methods(), reflect.TypeFor[*Session]()
	for i := range typ.NumMethod() {
		if name := typ.Method(i).Name; methods[name] == nil {
			t.Errorf("%s is not among the methods", name)
		}
	}
	if len(methods) != typ.NumMethod() {
		t.Errorf("%d methods for %d exported ones", len(methods), typ.NumMethod())
	}
}
