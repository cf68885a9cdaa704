// The Entra app registration. It trusts the managed identity, so that there is no client secret.
// Rerun the deployment when the directory has not caught up with itself yet (404 or 400 at the first run).
extension microsoftGraphV1

@description('The key of the registration in the directory: it makes repeated deployments meet the same one.')
param uniqueName string

@description('Name that people see when they consent.')
param displayName string

@description('Who may sign in.')
param signInAudience 'AzureADMyOrg' | 'AzureADMultipleOrgs'

@description('Addresses to which people come back from signing in.')
param redirectUris string[]

@description('Delegated: people sign in. Application: mailboxes are opened by Exchange (scripts/mailbox_scope.py).')
param access 'delegated' | 'application'

@description('Object id of the managed identity.')
param identityPrincipalId string

var graph = '00000003-0000-0000-c000-000000000000'
var delegatedScopes = {
  openid: '37f7f235-527c-4136-accd-4a02d197296e'
  profile: '14dad69e-099b-42c9-810b-d002981feec1'
  email: '64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0'
  offline_access: '7427e0e9-2fba-42fe-b0c0-848c9e6a8182'
  'User.Read': 'e1fe6dd8-ba31-4d61-89e7-88639da4683d'
  'User.ReadBasic.All': 'b340eb25-3456-403f-be2f-af7a0d370277'
  'Mail.ReadWrite': '024d486e-b451-40bb-833d-3e66d98c5c73'
  'Mail.ReadWrite.Shared': '5df07973-7d5d-46ed-9847-1271055cbd51'
  'Mail.Send': 'e383f46e-2787-4529-855e-0e479a3ffac0'
  'Mail.Send.Shared': 'a367ab51-6b49-43bf-a716-a1fb06d2a174'
}
// No Mail permission here: consented for the tenant it would open every mailbox, and Exchange could limit nothing.
var applicationRoles = {
  'User.Read.All': 'df021288-bdef-4463-88db-98f22de89214'
}
var wanted = access == 'application' ? applicationRoles : delegatedScopes

resource registration 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: uniqueName
  displayName: displayName
  signInAudience: signInAudience
  web: {
    redirectUris: redirectUris
    implicitGrantSettings: {
      enableAccessTokenIssuance: false
      enableIdTokenIssuance: false
    }
  }
  requiredResourceAccess: [
    {
      resourceAppId: graph
      resourceAccess: [
        for permission in items(wanted): {
          id: permission.value
          type: access == 'application' ? 'Role' : 'Scope'
        }
      ]
    }
  ]
}

resource trust 'Microsoft.Graph/applications/federatedIdentityCredentials@v1.0' = {
  name: '${registration.uniqueName}/function-app'
  description: 'The managed identity of the function app'
  issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
  subject: identityPrincipalId
  audiences: [
    'api://AzureADTokenExchange'
  ]
}

resource principal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: registration.appId
}

@description('Client id of the registration.')
output clientId string = registration.appId

@description('Object id of the enterprise application, which Exchange gives rights to.')
output servicePrincipalId string = principal.id
