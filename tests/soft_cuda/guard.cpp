// Lets a CPU build of torch hold tensors that claim to lie on cuda:0: their device guards do nothing.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

const Device CUDA(DeviceType::CUDA, 0);

struct NoGuard final : c10::impl::DeviceGuardImplInterface {
    DeviceType type() const override { return DeviceType::CUDA; }
    Device exchangeDevice(Device) const override { return CUDA; }
    Device getDevice() const override { return CUDA; }
    void setDevice(Device) const override {}
    void uncheckedSetDevice(Device) const noexcept override {}
    Stream getStream(Device) const override { return Stream(Stream::DEFAULT, CUDA); }
    Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, CUDA); }
    Stream exchangeStream(Stream) const override { return Stream(Stream::DEFAULT, CUDA); }
    DeviceIndex deviceCount() const noexcept override { return 1; }
    void record(void**, const Stream&, DeviceIndex, c10::EventFlag) const override {}
    void block(void*, const Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, DeviceIndex) const noexcept override {}
};

c10::impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, new NoGuard());

}  // namespace
