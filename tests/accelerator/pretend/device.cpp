// A PyTorch device without hardware, with its own memory, the CPU's kernels, and an error for every
// operation that mixes CPU and device tensors. Its allocator counts bytes, and fails on request.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace {

using at::Tensor;
constexpr c10::DeviceType kPretend = c10::DeviceType::PrivateUse1;
constexpr size_t kMapped = 1 << 16;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

// ---- what is counted -------------------------------------------------------------------------

std::atomic<int64_t> used{0}, peak{0}, allocations{0};
std::atomic<int64_t> limit{INT64_MAX};       // bytes in use above which an allocation is refused
std::atomic<int64_t> refused_from{INT64_MAX};  // number of the first allocation that is refused
std::atomic<int64_t> refused_until{INT64_MAX}; // and of the first one after it that is not
std::atomic<int64_t> to_device{0}, to_device_async{0}, to_host{0}, waits{0};
std::atomic<int64_t> shapes_only_above{0};   // elements; 0: everything is computed
std::atomic<bool> has_float64{true};
py::object* on_wait = nullptr;               // told the kind of every wait

void count(std::atomic<int64_t>& counter, const char* kind) {
  ++counter;
  if (on_wait == nullptr) return;
  py::gil_scoped_acquire gil;
  (*on_wait)(kind);
}

// ---- memory ----------------------------------------------------------------------------------

struct Block {
  int64_t bytes;
  void* own;       // freed with it, or
  Tensor borrowed; // a CPU result whose memory became the device's
  bool mapped = false;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  used -= block->bytes;
  if (block->mapped) munmap(block->own, block->bytes);
  else if (block->own != nullptr) c10::free_cpu(block->own);
  delete block;
}

void take(int64_t bytes) {
  int64_t number = allocations++;
  bool refused = number >= refused_from && number < refused_until;
  TORCH_CHECK_WITH(
      OutOfMemoryError, !refused && used + bytes <= limit,
      "Pretend device out of memory: tried to allocate ", bytes, " bytes, ", used.load(), " in use, ",
      limit.load(), " at most");
  int64_t now = (used += bytes);
  for (int64_t seen = peak; seen < now && !peak.compare_exchange_weak(seen, now);) {}
}

c10::DataPtr data_ptr(void* data, Block* block) {
  return {data, block, &release, at::Device(kPretend, 0)};
}

struct CountingAllocator final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    take(static_cast<int64_t>(bytes));
    if (shapes_only_above > 0 && bytes > kMapped) {  // zeros that take no memory until they are written
      void* zeros = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      TORCH_CHECK(zeros != MAP_FAILED, "mmap of ", bytes, " bytes failed");
      return data_ptr(zeros, new Block{static_cast<int64_t>(bytes), zeros, {}, true});
    }
    void* data = bytes ? c10::alloc_cpu(bytes) : nullptr;
    return data_ptr(data, new Block{static_cast<int64_t>(bytes), data, {}});
  }
  at::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const final {
    default_copy_data(to, from, bytes);
  }
};
CountingAllocator allocator;
REGISTER_ALLOCATOR(kPretend, &allocator);

void check_dtype(at::ScalarType type) {
  TORCH_CHECK_TYPE(has_float64 || type != at::kDouble, "the pretend device has no float64");
}

// ---- the CPU's view of the device's memory, and back -----------------------------------------

bool is_ours(const Tensor& t) { return t.defined() && t.is_privateuseone(); }

Tensor on_host(const Tensor& t) {  // the same memory
  if (!is_ours(t)) return t;
  auto options = at::TensorOptions().dtype(t.dtype()).device(at::kCPU);
  if (!t.has_storage() || t.storage().nbytes() == 0)
    return at::empty_strided(t.sizes(), t.strides(), options);
  char* base = static_cast<char*>(t.storage().mutable_data()) + t.storage_offset() * t.itemsize();
  return at::from_blob(base, t.sizes(), t.strides(), options);
}

Tensor on_device(const Tensor& result) {  // a CPU result of the kernel's own becomes the device's
  if (!result.defined() || !result.is_cpu()) return result;
  check_dtype(result.scalar_type());
  auto bytes = static_cast<int64_t>(result.storage().nbytes());
  take(bytes);
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes,
      data_ptr(result.storage().mutable_data(), new Block{bytes, nullptr, result}), &allocator, true);
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), kKeys, result.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(
      result.sizes(), result.strides(), result.storage_offset());
  return made;
}

// ---- operators that the CPU cannot do for it --------------------------------------------------

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, c10::dtype_or_default(dtype));
}

bool shapes_only(const Tensor& t) { return shapes_only_above > 0 && t.numel() > shapes_only_above; }

Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (!is_ours(from)) non_blocking ? count(to_device_async, "to_device_async") : count(to_device, "to_device");
  if (!is_ours(to)) count(to_host, "to_host");
  c10::impl::ExcludeDispatchKeyGuard guard(c10::autograd_dispatch_keyset);
  if (!is_ours(to) || !shapes_only(to)) {
    on_host(to).copy_(on_host(from));
    if (shapes_only_above > 0 && at::isFloatingType(to.scalar_type())) on_host(to).nan_to_num_(0);
  } else {  // not all zeros
    at::from_blob(on_host(to).data_ptr(), {1}, on_host(to).options()).fill_(1);
  }
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

Tensor view(const Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
  std::optional<int64_t> start;
  if (offset) start = offset->expect_int();
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

void grow(const c10::Storage& storage, size_t bytes) {
  auto fresh = allocator.allocate(bytes);
  if (storage.nbytes()) std::memcpy(fresh.get(), storage.data(), std::min(bytes, storage.nbytes()));
  storage.unsafeGetStorageImpl()->set_data_ptr(std::move(fresh));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

const Tensor& resize(const Tensor& self, c10::SymIntArrayRef sizes, std::optional<at::MemoryFormat>) {
  auto size = C10_AS_INTARRAYREF_SLOW(sizes);
  size_t bytes = (c10::multiply_integers(size) + self.storage_offset()) * self.itemsize();
  if (self.storage().nbytes() < bytes) grow(self.storage(), bytes);
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return self;
}

Tensor& set_storage(Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                    at::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return self;
}

Tensor& set_whole_storage(Tensor& self, at::Storage source) {
  int64_t numbers = static_cast<int64_t>(source.nbytes()) / self.itemsize();
  return set_storage(self, std::move(source), 0, {numbers}, {1});
}

at::Scalar item(const Tensor& self) {
  count(waits, "item");
  return on_host(self).item();
}

// ---- everything else ---------------------------------------------------------------------------

using Stack = torch::jit::Stack;

template <typename Change>
c10::IValue each_tensor(const c10::IValue& value, Change change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& t : value.toTensorVector()) list.push_back(change(t));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& t : value.toOptionalTensorList().vec())
      list.push_back(t ? std::optional<Tensor>(change(*t)) : t);
    return list;
  }
  return value;
}

// As on CUDA: a CPU scalar is let through, and the indices of advanced indexing are copied there.
void check_devices(const std::string& name, const std::vector<c10::IValue>& arguments) {
  static const std::unordered_set<std::string> indexing{
      "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};
  for (size_t i = 0; i < arguments.size(); ++i)
    each_tensor(arguments[i], [&](const Tensor& t) {
      if (!t.defined() || is_ours(t) || (t.dim() == 0 && t.is_cpu())) return t;
      bool index = i > 0 && indexing.count(name);
      TORCH_CHECK(index, "Expected all tensors to be on the same device, but got a ", t.device(),
                  " tensor of shape ", t.sizes(), " as argument ", i, " of ", name);
      count(to_device, "to_device");
      return t;
    });
}

// Operators whose CUDA kernels wait for the device, as the size or the branch depends on values.
void count_waits(const std::string& name, const std::vector<c10::IValue>& arguments) {
  static const std::unordered_set<std::string> waiting{
      "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::bincount",
      "aten::unique_dim", "aten::unique_consecutive", "aten::_linalg_eigh", "aten::_linalg_svd"};
  bool waits_here = waiting.count(name);
  if (name.rfind("aten::index", 0) == 0 && arguments.size() > 1)
    each_tensor(arguments[1], [&](const Tensor& t) {
      waits_here |= t.defined() && (t.scalar_type() == at::kBool || t.scalar_type() == at::kByte);
      return t;
    });
  if (name == "aten::repeat_interleave") waits_here |= arguments.back().isNone();
  if (waits_here) count(waits, name.c_str());
}

// Values for results that are not computed: positive ones at the beginning, zeros behind them.
void fill_with_pattern(const Tensor& out) {
  auto beginning = at::from_blob(out.data_ptr(), {std::min<int64_t>(out.numel(), 1024)},
                                 at::TensorOptions().dtype(out.dtype()).device(at::kCPU));
  if (out.scalar_type() == at::kBool) {
    std::memset(out.data_ptr(), 1, out.numel());  // true: numbers are finite
  } else if (at::isFloatingType(out.scalar_type())) {
    beginning.copy_(at::linspace(0.1, 1.0, beginning.numel(), at::kFloat));
  } else {
    std::memset(out.data_ptr(), 0, out.nbytes());
  }
}

bool any_above(const std::vector<c10::IValue>& values) {
  bool found = false;
  for (const auto& value : values)
    each_tensor(value, [&](const Tensor& t) {
      found |= t.defined() && shapes_only(t);
      return t;
    });
  return found;
}

// Ask the operator's own rules for the shapes of its results; none where they depend on values.
const std::optional<Stack>& shapes_of(const c10::OperatorHandle& op, const std::vector<c10::IValue>& arguments) {
  static std::unordered_map<std::string, std::optional<Stack>> known;  // the rules are in Python, and slow
  std::ostringstream key;
  key << op.operator_name();
  Stack meta;
  for (const auto& argument : arguments) {
    bool tensors = argument.isTensor() || argument.isTensorList() || argument.isOptionalTensorList();
    if (!tensors) key << '|' << argument;
    meta.push_back(argument.isDevice() ? c10::IValue(at::Device(at::kMeta)) : each_tensor(argument, [&](const Tensor& t) {
      if (!t.defined()) {
        key << "|none";
        return t;
      }
      key << '|' << t.scalar_type() << t.sizes() << t.strides();
      return at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kMeta));
    }));
  }
  auto [place, fresh] = known.try_emplace(key.str());
  if (fresh) try {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), &meta);
    place->second = std::move(meta);
  } catch (const std::exception&) {  // no rules
  }
  return place->second;
}

// Give results their memory and no arithmetic where anything is large; false where it is to be computed.
bool only_shapes(const c10::OperatorHandle& op, Stack* stack, const std::vector<c10::IValue>& arguments) {
  const auto& schema = op.schema();
  bool reads_large = any_above(arguments);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    if (!reads_large) return false;
    if (arguments[i].isTensor() && arguments[i].toTensor().numel() == 0) {  // an `out=` to be resized
      const std::optional<Stack>& meta = shapes_of(op, arguments);
      if (!meta) return false;
      for (size_t r = 0; r < schema.returns().size(); ++r)
        arguments[i + r].toTensor().resize_((*meta)[r].toTensor().sizes());
    }
    torch::jit::drop(stack, arguments.size());
    for (size_t r = 0; r < schema.returns().size(); ++r) {
      if (schema.arguments()[i].kwarg_only()) fill_with_pattern(arguments[i + r].toTensor());  // `out=`
      stack->push_back(arguments[i + r]);
    }
    return true;
  }
  const std::optional<Stack>& meta = shapes_of(op, arguments);
  if (!meta) return false;
  if (!any_above(*meta) && !reads_large) return false;
  torch::jit::drop(stack, arguments.size());
  for (const auto& result : *meta)
    stack->push_back(each_tensor(result, [](const Tensor& t) {
      if (!t.defined()) return t;
      auto out = at::empty(t.sizes(), t.options().device(at::Device(kPretend, 0)));
      fill_with_pattern(out);
      return out;
    }));
  return true;
}

void by_cpu(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.operator_name().name;
  auto last = torch::jit::last(*stack, schema.arguments().size());
  std::vector<c10::IValue> arguments(last.begin(), last.end());
  check_devices(name, arguments);
  count_waits(name, arguments);
  bool is_view = false;
  for (const auto& result : schema.returns())
    is_view |= result.alias_info() != nullptr && !result.alias_info()->isWrite();
  if (shapes_only_above > 0 && !is_view && only_shapes(op, stack, arguments)) return;

  torch::jit::drop(stack, arguments.size());
  std::vector<c10::IValue> lent;
  std::unordered_set<const void*> memory;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& argument = arguments[i];
    bool out = schema.arguments()[i].kwarg_only() && schema.arguments()[i].alias_info() != nullptr;
    lent.push_back(argument.isDevice() ? c10::IValue(at::Device(at::kCPU)) : each_tensor(argument, [&](const Tensor& t) {
      if (out) return at::empty(t.sizes(), t.options().device(at::kCPU));  // kernels may resize it
      Tensor host = on_host(t);
      if (host.defined() && host.has_storage()) memory.insert(host.storage().data());
      return host;
    }));
    stack->push_back(lent.back());
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  auto results = torch::jit::last(*stack, schema.returns().size());
  std::vector<c10::IValue> ours;
  for (size_t r = 0; r < results.size(); ++r) {
    const auto* alias = schema.returns()[r].alias_info();
    if (alias == nullptr) {
      ours.push_back(each_tensor(results[r], [&](const Tensor& t) {
        bool shared = t.defined() && t.has_storage() && memory.count(t.storage().data());
        return on_device(shared ? t.clone() : t);
      }));
      continue;
    }
    size_t source = 0;
    while (schema.arguments()[source].alias_info() == nullptr ||
           schema.arguments()[source].alias_info()->beforeSets() != alias->beforeSets())
      ++source;
    if (!alias->isWrite()) {  // a view: the same place of the device's own tensor
      const Tensor &base = arguments[source].toTensor(), &host = lent[source].toTensor();
      ours.push_back(each_tensor(results[r], [&](const Tensor& t) {
        auto start = static_cast<const char*>(t.data_ptr()) - static_cast<const char*>(host.data_ptr());
        return at::as_strided(base, t.sizes(), t.strides(), base.storage_offset() + start / t.itemsize());
      }));
      continue;
    }
    if (schema.arguments()[source].kwarg_only()) {  // `out=`
      const Tensor &target = arguments[source].toTensor(), &written = lent[source].toTensor();
      if (target.sizes() != written.sizes()) target.resize_(written.sizes());
      on_host(target).copy_(written);
    }
    ours.push_back(arguments[source]);
  }
  torch::jit::drop(stack, results.size());
  for (auto& value : ours) stack->push_back(std::move(value));
}

void same_dtype(const Tensor& a, const Tensor& b) {
  TORCH_CHECK(a.scalar_type() == b.scalar_type(), "Input type (", a.scalar_type(),
              ") and weight type (", b.scalar_type(), ") should be the same");
}

// The CPU has no kernels of these names: the ones that it has are called on its view.
Tensor convolution(const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias,
                   c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                   bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  std::vector<c10::IValue> arguments{x, w, bias ? *bias : Tensor()};
  check_devices("aten::convolution", arguments);
  same_dtype(x, w);
  std::optional<Tensor> b;
  if (bias && bias->defined()) b = on_host(*bias);
  auto call = [&](const Tensor& input, const Tensor& weight, const std::optional<Tensor>& added) {
    return at::convolution(input, weight, added, C10_AS_INTARRAYREF_SLOW(stride),
                           C10_AS_INTARRAYREF_SLOW(padding), C10_AS_INTARRAYREF_SLOW(dilation), transposed,
                           C10_AS_INTARRAYREF_SLOW(output_padding), groups.expect_int());
  };
  if (shapes_only(x) || shapes_only(w)) {
    auto meta = call(x.to(at::kMeta), w.to(at::kMeta), {});
    auto out = at::empty(meta.sizes(), x.options());
    fill_with_pattern(out);
    return out;
  }
  return on_device(call(on_host(x).contiguous(), on_host(w).contiguous(), b));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& w, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
    c10::SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
  std::vector<c10::IValue> arguments{gradient, x, w};
  check_devices("aten::convolution_backward", arguments);
  int64_t out = transposed ? w.size(1) * groups.expect_int() : w.size(0);
  if (shapes_only(x) || shapes_only(w) || shapes_only(gradient)) {
    auto made = [](bool wanted, at::IntArrayRef size, const Tensor& like) {
      if (!wanted) return Tensor();
      auto result = at::empty(size, like.options());
      fill_with_pattern(result);
      return result;
    };
    return {made(mask[0], x.sizes(), x), made(mask[1], w.sizes(), w), made(mask[2], {out}, w)};
  }
  auto [dx, dw, db] = at::convolution_backward(
      on_host(gradient).contiguous(), on_host(x).contiguous(), on_host(w).contiguous(),
      at::OptionalIntArrayRef(at::IntArrayRef({out})), C10_AS_INTARRAYREF_SLOW(stride),
      C10_AS_INTARRAYREF_SLOW(padding), C10_AS_INTARRAYREF_SLOW(dilation), transposed,
      C10_AS_INTARRAYREF_SLOW(output_padding), groups.expect_int(), mask);
  return {on_device(dx), on_device(dw), on_device(db)};
}

// Attention without its matrix, as on CUDA: the CPU's own flash kernels.
int64_t attention_kernel(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>&,
                         double dropout, bool, std::optional<double>, bool) {
  bool rows = q.stride(-1) == 1 && k.stride(-1) == 1 && v.stride(-1) == 1;
  bool flash = rows && q.dim() == 4 && dropout == 0;
  return static_cast<int64_t>(flash ? sdp::SDPBackend::flash_attention : sdp::SDPBackend::math);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_cpu>()); }

// Autocast changes nothing here: results keep the dtype of what goes in.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("view", &view);
  m.impl("as_strided", &as_strided);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("_local_scalar_dense", &item);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

}  // namespace

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &attention_kernel)
}  // namespace at::native

namespace {

// ---- one device, one stream -----------------------------------------------------------------------

struct Guard final : public c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kPretend;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return kPretend; }
  c10::Device exchangeDevice(c10::Device) const override { return {kPretend, 0}; }
  c10::Device getDevice() const override { return {kPretend, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, {kPretend, 0}); }
  c10::Stream getDefaultStream(c10::Device d) const override { return getStream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
  c10::Stream getStreamFromGlobalPool(c10::Device d, bool) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (event != nullptr && *event == nullptr) *event = new int(0);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override { delete static_cast<int*>(event); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { count(waits, "synchronise"); }
  void synchronizeEvent(void*) const override { count(waits, "synchronise"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { count(waits, "synchronise"); }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  double elapsedTime(void*, void*, const c10::DeviceIndex) const override { return 0; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks : public at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override { grow(storage, bytes); }
};
Hooks hooks;

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("counts", [] {
    return std::map<std::string, int64_t>{
        {"used", used}, {"peak", peak}, {"allocations", allocations}, {"to_device", to_device},
        {"to_device_async", to_device_async}, {"to_host", to_host}, {"waits", waits}};
  });
  m.def("reset", [] {
    peak = used.load();
    for (auto* counter : {&allocations, &to_device, &to_device_async, &to_host, &waits}) *counter = 0;
  });
  m.def("set_limit", [](int64_t bytes) { limit = bytes; });
  m.def("refuse", [](int64_t from, int64_t until) { refused_from = from; refused_until = until; });
  m.def("set_float64", [](bool there) { has_float64 = there; });
  m.def("only_shapes_above", [](int64_t elements) { shapes_only_above = elements; });
  m.def("on_wait", [](py::object told) {
    delete on_wait;
    on_wait = told.is_none() ? nullptr : new py::object(std::move(told));
  });
}
