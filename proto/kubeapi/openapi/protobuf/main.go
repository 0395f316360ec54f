// Derives from Kubernetes' Go types what a decoder of their protobuf encoding has to know, and encodes samples to test one
// with. Run by hand, see ../README.md:
//
//	go run . table | zstd -19 > ../protobuf.json.zst
//	go run . samples | zstd -19 > ../../tests/fixtures/protobuf.json.zst
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Objects that clients send, by apiVersion.
var objects = map[string][]runtime.Object{
	"v1": {
		&corev1.Namespace{}, &corev1.Node{}, &corev1.Pod{}, &corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Service{},
		&corev1.Endpoints{}, &corev1.PersistentVolume{}, &corev1.PersistentVolumeClaim{}, &corev1.ServiceAccount{},
		&corev1.Event{}, &corev1.Binding{}, &corev1.ResourceQuota{}, &corev1.LimitRange{}, &corev1.ReplicationController{},
		&metav1.DeleteOptions{},
	},
	"apps/v1":                  {&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &appsv1.DaemonSet{}, &appsv1.StatefulSet{}, &appsv1.ControllerRevision{}},
	"authentication.k8s.io/v1": {&authenticationv1.TokenRequest{}, &authenticationv1.TokenReview{}, &authenticationv1.SelfSubjectReview{}},
	"authorization.k8s.io/v1": {
		&authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{},
		&authorizationv1.SubjectAccessReview{}, &authorizationv1.LocalSubjectAccessReview{},
	},
	"autoscaling/v1":                  {&autoscalingv1.Scale{}, &autoscalingv1.HorizontalPodAutoscaler{}},
	"batch/v1":                        {&batchv1.Job{}, &batchv1.CronJob{}},
	"certificates.k8s.io/v1":          {&certificatesv1.CertificateSigningRequest{}},
	"coordination.k8s.io/v1":          {&coordinationv1.Lease{}},
	"discovery.k8s.io/v1":             {&discoveryv1.EndpointSlice{}},
	"events.k8s.io/v1":                {&eventsv1.Event{}},
	"networking.k8s.io/v1":            {&networkingv1.Ingress{}, &networkingv1.IngressClass{}, &networkingv1.NetworkPolicy{}},
	"policy/v1":                       {&policyv1.Eviction{}, &policyv1.PodDisruptionBudget{}},
	"rbac.authorization.k8s.io/v1":    {&rbacv1.Role{}, &rbacv1.RoleBinding{}, &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}},
	"storage.k8s.io/v1":               {&storagev1.StorageClass{}, &storagev1.CSIDriver{}, &storagev1.CSINode{}, &storagev1.VolumeAttachment{}},
	"apiextensions.k8s.io/v1":         {&apiextensionsv1.CustomResourceDefinition{}},
	"admissionregistration.k8s.io/v1": {&admissionv1.ValidatingWebhookConfiguration{}, &admissionv1.MutatingWebhookConfiguration{}},
}

// Types whose JSON is not made field by field.
var special = map[reflect.Type]string{
	reflect.TypeOf(metav1.Time{}):                                  "time",
	reflect.TypeOf(metav1.MicroTime{}):                             "microTime",
	reflect.TypeOf(metav1.Duration{}):                              "duration",
	reflect.TypeOf(resource.Quantity{}):                            "quantity",
	reflect.TypeOf(intstr.IntOrString{}):                           "intOrString",
	reflect.TypeOf(metav1.FieldsV1{}):                              "json",
	reflect.TypeOf(runtime.RawExtension{}):                         "json",
	reflect.TypeOf(apiextensionsv1.JSON{}):                         "json",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrBool{}):        "schemaOrBool",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrArray{}):       "schemaOrArray",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrStringArray{}): "schemaOrStrings",
}

// A field: its number, its name in JSON, its type, and letters: r repeated, m map (of strings to the type), i inline,
// z left out of JSON when it is zero. A type is the name of a scalar, of a special type, or the index of a message.
type field [4]any

type table struct {
	Objects  map[string]int `json:"objects"`
	Schema   int            `json:"schema"`
	Messages [][]field      `json:"messages"`
	seen     map[reflect.Type]int
}

func (t *table) message(of reflect.Type) int {
	if at, ok := t.seen[of]; ok {
		return at
	}
	at := len(t.Messages)
	t.seen[of] = at
	t.Messages = append(t.Messages, []field{})
	fields := []field{}
	for i := 0; i < of.NumField(); i++ {
		f := of.Field(i)
		tag := f.Tag.Get("protobuf")
		if tag == "" {
			continue
		}
		number, err := strconv.Atoi(strings.Split(tag, ",")[1])
		if err != nil {
			panic(fmt.Sprint(of, " ", f.Name, ": ", tag))
		}
		names := strings.Split(f.Tag.Get("json"), ",")
		flags, kind := "", f.Type
		omit := false
		for _, option := range names[1:] {
			omit = omit || option == "omitempty" || option == "omitzero"
			if option == "inline" {
				flags += "i"
			}
		}
		if names[0] == "" && !strings.Contains(flags, "i") {
			flags += "i"
		}
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		} else if omit {
			flags += "z"
		}
		switch {
		case kind.Kind() == reflect.Map:
			flags += "m"
			kind = kind.Elem()
		case kind.Kind() == reflect.Slice && kind.Elem().Kind() != reflect.Uint8:
			flags += "r"
			kind = kind.Elem()
		}
		fields = append(fields, field{number, names[0], t.kind(kind), flags})
	}
	sort.Slice(fields, func(a, b int) bool { return fields[a][0].(int) < fields[b][0].(int) })
	t.Messages[at] = fields
	return at
}

func (t *table) kind(of reflect.Type) string {
	if name, ok := special[of]; ok {
		return name
	}
	switch of.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int64:
		return "int"
	case reflect.Float64:
		return "double"
	case reflect.Struct:
		return strconv.Itoa(t.message(of))
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		// The value of a map: a message of its own around the list.
		if of.Elem().Kind() == reflect.String {
			return "strings"
		}
	}
	panic(fmt.Sprint("no kind for ", of))
}

func names() (out []string) {
	for version := range objects {
		out = append(out, version)
	}
	sort.Strings(out)
	return out
}

func kindOf(object runtime.Object) string { return reflect.TypeOf(object).Elem().Name() }

func derive() table {
	t := table{Objects: map[string]int{}, seen: map[reflect.Type]int{}}
	for _, version := range names() {
		for _, object := range objects[version] {
			t.Objects[version+"/"+kindOf(object)] = t.message(reflect.TypeOf(object).Elem())
		}
	}
	t.Schema = t.message(reflect.TypeOf(apiextensionsv1.JSONSchemaProps{}))
	return t
}

// filler puts something into every field it reaches; which values, its state decides.
type filler struct{ state uint64 }

func (f *filler) next(n uint64) uint64 {
	f.state = f.state*6364136223846793005 + 1442695040888963407
	return (f.state >> 33) % n
}

func (f *filler) text() string {
	return []string{"", "a", "name-1", "ü\"\\\n", "example.com/x"}[f.next(5)]
}

func (f *filler) fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case metav1.TypeMeta:
		return
	case metav1.Time:
		if f.next(3) > 0 {
			v.Set(reflect.ValueOf(metav1.Unix(int64(f.next(4_000_000_000)), 0)))
		}
		return
	case metav1.MicroTime:
		if f.next(3) > 0 {
			at := time.Unix(int64(f.next(4_000_000_000)), int64(f.next(1_000_000))*1000)
			v.Set(reflect.ValueOf(metav1.NewMicroTime(at)))
		}
		return
	case metav1.Duration:
		v.Set(reflect.ValueOf(metav1.Duration{Duration: time.Duration(f.next(1_000_000_000_000))}))
		return
	case resource.Quantity:
		v.Set(reflect.ValueOf(resource.MustParse([]string{"0", "100m", "2Gi", "1500", "0.5", "3e3"}[f.next(6)])))
		return
	case intstr.IntOrString:
		if f.next(2) == 0 {
			v.Set(reflect.ValueOf(intstr.FromInt32(int32(f.next(70000)))))
		} else {
			v.Set(reflect.ValueOf(intstr.FromString("25%")))
		}
		return
	case metav1.FieldsV1, runtime.RawExtension, apiextensionsv1.JSON:
		v.FieldByName("Raw").SetBytes([]byte([]string{`{"f:a":{"f:b":{}}}`, `{"x":[1,"2",true]}`}[f.next(2)]))
		return
	case apiextensionsv1.JSONSchemaPropsOrBool:
		or := apiextensionsv1.JSONSchemaPropsOrBool{Allows: f.next(2) == 0}
		if f.next(2) == 0 {
			or = apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}
		}
		v.Set(reflect.ValueOf(or))
		return
	case apiextensionsv1.JSONSchemaPropsOrArray:
		or := apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}
		if f.next(2) == 0 {
			or = apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{Type: "a"}, {Type: "b"}}}
		}
		v.Set(reflect.ValueOf(or))
		return
	case apiextensionsv1.JSONSchemaPropsOrStringArray:
		or := apiextensionsv1.JSONSchemaPropsOrStringArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}
		if f.next(2) == 0 {
			or = apiextensionsv1.JSONSchemaPropsOrStringArray{Property: []string{"a", "b"}}
		}
		v.Set(reflect.ValueOf(or))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if depth == 0 {
			return
		}
		for i := 0; i < v.NumField(); i++ {
			if v.Field(i).CanSet() {
				f.fill(v.Field(i), depth-1)
			}
		}
	case reflect.Pointer:
		if depth > 0 && f.next(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(f.text()))
			return
		}
		n := int(f.next(3))
		if depth == 0 || n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n; i++ {
			f.fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		if depth == 0 || f.next(2) == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for i := uint64(0); i <= f.next(2); i++ {
			value := reflect.New(v.Type().Elem()).Elem()
			f.fill(value, depth-1)
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key-", i)).Convert(v.Type().Key()), value)
		}
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.next(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 300, 2147483647}[f.next(5)])
	case reflect.Float64:
		v.SetFloat([]float64{0, 1.5, -2}[f.next(3)])
	default:
		panic(fmt.Sprint("cannot fill ", v.Type()))
	}
}

type sample struct {
	Body   []byte          `json:"body"`
	Object json.RawMessage `json:"object"`
}

func samples() (out []sample) {
	serializer := protobuf.NewSerializer(nil, nil)
	for _, version := range names() {
		for _, object := range objects[version] {
			for seed := uint64(0); seed < 3; seed++ {
				fresh := reflect.New(reflect.TypeOf(object).Elem())
				state := seed
				for _, c := range version + kindOf(object) {
					state = state*31 + uint64(c)
				}
				(&filler{state}).fill(fresh.Elem(), 5+int(seed))
				filled := fresh.Interface().(runtime.Object)
				filled.GetObjectKind().SetGroupVersionKind(gvk(version, kindOf(object)))
				var body bytes.Buffer
				must(serializer.Encode(filled, &body))
				text, err := json.Marshal(filled)
				must(err)
				out = append(out, sample{body.Bytes(), text})
			}
		}
	}
	return out
}

func main() {
	var out any
	switch {
	case len(os.Args) == 2 && os.Args[1] == "table":
		out = derive()
	case len(os.Args) == 2 && os.Args[1] == "samples":
		out = samples()
	default:
		fmt.Fprintln(os.Stderr, "usage: go run . table|samples")
		os.Exit(2)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(out))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func gvk(version, kind string) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(version, kind)
}
