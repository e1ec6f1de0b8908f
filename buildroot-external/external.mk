# What the packages of this tree share.

# hal's services are taken from the checkout that this tree lies in; `cp -rL` copies them along with the tree.
ifeq ($(wildcard $(BR2_EXTERNAL_HAL_PATH)/services/init/init.h),)
$(error $(BR2_EXTERNAL_HAL_PATH)/services leads nowhere: copy the tree out of a checkout of hal with `cp -rL`)
endif

# Python wheels come from where Buildroot takes its own Python packages from.
HAL_WHEELS_SITE = $(firstword $(subst /packages/, ,$(PYTHON_SYSTEMD_SITE)))/packages

# Installs rendered files. $(1): patterns of paths in the image.
define hal-install-rendered
	$(BR2_EXTERNAL_HAL_PATH)/support/install_rendered.py \
		$(call qstrip,$(BR2_PACKAGE_HAL_APPLIANCE_RENDERED)) \
		$(call qstrip,$(BR2_PACKAGE_HAL_APPLIANCE_SPEC)) \
		$(TARGET_DIR) $(foreach pattern,$(1),'$(pattern)')
endef

# Compiles Python modules so that they are valid whatever time the image's files have (PEP 552). $(1): where they are.
define hal-compile-modules
	PYTHONHASHSEED=0 $(HOST_DIR)/bin/python3 -S -m compileall -q \
		--invalidation-mode unchecked-hash -s $(TARGET_DIR) -p / $(TARGET_DIR)$(1)
endef

# Installs packages of hal's services. $(1): the directory that has them; $(2): which.
define hal-install-services
	$(foreach service,$(2),
		cd $(1) && find $(service) -name '*.py' \
			-exec $(INSTALL) -D -m 0644 {} $(TARGET_DIR)/usr/lib/hal/services/{} \;
		$(call hal-compile-modules,/usr/lib/hal/services/$(service))
	)
endef

include $(sort $(wildcard $(BR2_EXTERNAL_HAL_PATH)/package/*/*.mk))
